package command

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
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
		return nil, fmt.Errorf("listening: %w", err)
	}
	return []net.Listener{l}, nil
}

// heapFloor is memory that is reserved and never touched: it costs none, but
// the collector, which starts when the heap has doubled, counts it. Without it
// a server of 5 MiB would collect after every dozen handshakes.
const heapFloor = 32 << 20

// run serves until ctx ends, then drains.
func (d *server) run(ctx context.Context, listeners []net.Listener) error {
	reserve := make([]byte, heapFloor)
	defer runtime.KeepAlive(reserve)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { failed <- d.http.Serve(tls.NewListener(d.limited(l), d.cert.config())) }()
	}
	go d.watch(ctx)
	go d.supply.Run(ctx, func(err error) { renewed(d.log, d.supply, err) })
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	d.notify(daemon.SdNotifyReady)
	for {
		select {
		case <-reload:
			d.reload()
		case err := <-failed:
			return errors.Join(fmt.Errorf("serving: %w", err), d.http.Close())
		case <-ctx.Done():
			return d.drain(ctx)
		}
	}
}

func (d *server) reload() {
	d.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	if err := d.cert.load(time.Now()); err != nil {
		d.log.Error("keeping the TLS identity in use", "error", err)
	} else {
		d.log.Info("TLS identity read again", "expires", d.cert.current.Load().Leaf.NotAfter)
		d.warnOfExpiry()
	}
	reloadEndorsements(d.log, d.supply)
	if err := d.reloadClients(); err != nil {
		d.log.Error("keeping the client certificates accepted so far", "error", err)
	}
	d.reloadPolicy()
	d.notify(daemon.SdNotifyReady)
}

// reloadClients takes client_ca and clients as the configuration has them now.
// Whoever is no longer in the list is refused at once, even on a connection
// that is open already.
func (d *server) reloadClients() error {
	cfg, err := d.reread()
	if err != nil {
		return err
	}
	if err := d.api.SetClients(cfg.clients()); err != nil {
		return err
	}
	return d.cert.loadClients(cfg.ClientCA)
}

// reloadPolicy reads the configuration's [policy] again. One that is refused
// leaves the one in force.
func (d *server) reloadPolicy() {
	cfg, err := d.reread()
	var p *kbs.Policy
	if err == nil {
		p, err = cfg.policy()
	}
	if err == nil {
		err = d.api.SetPolicy(p)
	}
	if err != nil {
		d.log.Error("keeping the policy in use", "error", err)
		return
	}
	d.log.Info("policy read again", "set", p != nil)
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
