package command

import (
	"context"
	"errors"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/ccrun/ccrun/attest-server/store"
)

// watch feeds systemd's watchdog as long as the store answers.
func (d *server) watch(ctx context.Context) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	t := time.NewTicker(interval / 2)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			if d.store == nil { // of a server that has moved
				d.notify(daemon.SdNotifyWatchdog)
				continue
			}
			// A restart brings no database back that is away, and the requests
			// that can be answered would be lost.
			if err := d.store.Check(ctx); err != nil && !(d.store.Shared() && errors.Is(err, store.ErrUnavailable)) {
				d.log.Error("not feeding the watchdog: the store does not answer", "error", err)
				continue
			}
			d.notify(daemon.SdNotifyWatchdog)
		}
	}
}

func (d *server) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Warn("telling systemd", "error", err)
	}
}
