package command

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/ccrun/ccrun/attest-server/answer"
)

// drainTime is how long SIGTERM waits for answers under way.
const drainTime = 20 * time.Second

// listen takes systemd's sockets, or opens its own.
func listen(address string) ([]net.Listener, error) {
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("taking sockets from systemd: %w", err)
	}
	var listeners []net.Listener
	for _, l := range passed {
		if l == nil {
			return nil, errors.New("taking sockets from systemd: expected stream sockets only")
		}
		listeners = append(listeners, l)
	}
	if len(listeners) > 0 {
		return listeners, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, notListening("--listen", address, err)
	}
	return []net.Listener{l}, nil
}

// heapFloor is memory that is reserved and never touched: it costs none, but
// the collector, which starts when the heap has doubled, counts it. Without it
// a server of 5 MiB would collect after every dozen handshakes.
const heapFloor = 32 << 20

// run serves until ctx ends, then drains. reload is what SIGHUP arrives on.
func (d *server) run(ctx context.Context, listeners []net.Listener, reload <-chan os.Signal) error {
	reserve := make([]byte, heapFloor)
	defer runtime.KeepAlive(reserve)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if d.anchor != nil {
		// At once, so that guests that wait for a restart need not wait longer.
		_ = d.anchor.Round(ctx) // logged, and asked again
		go d.anchor.Run(ctx, cmp.Or(d.cfg.WitnessInterval, defaultWitnessInterval))
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- d.http.Serve(tls.NewListener(d.limited(l), answer.InTurn(d.cert.config()))) }()
	}
	go d.watch(ctx)
	go d.supply.Run(ctx, func(err error) { renewed(d.log, d.supply, err) })
	d.notify(daemon.SdNotifyReady)
	for {
		select {
		case <-reload:
			d.reload(ctx)
		case err := <-failed:
			return errors.Join(fmt.Errorf("serving: %w", err), d.http.Close())
		case <-ctx.Done():
			return d.drain(ctx)
		}
	}
}

// drain finishes answers under way, though ctx has ended.
func (d *server) drain(ctx context.Context) error {
	d.notify(daemon.SdNotifyStopping)
	d.log.Info("stopping")
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := d.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stopping: %w", err), d.http.Close())
	}
	return nil
}
