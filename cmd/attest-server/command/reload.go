package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"reflect"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/ccrun/ccrun/hint"
)

// anew is all that SIGHUP reads again beside endorsements, checked and not yet
// in use.
type anew struct {
	cfg      Config
	identity *tls.Certificate
	clients  *x509.CertPool // nil: no client certificates
	use      func()         // policy and client list
}

// reload takes all that can change while the server runs, or nothing of it.
func (d *server) reload(ctx context.Context) {
	d.notify(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	if err := d.takeAnew(ctx); err != nil {
		d.log.Error("keeping all that is in use: the reload is refused", "error", err, "hint", hint.Of(err),
			"configuration", d.cfg.inForce.Configuration, "policy", d.cfg.inForce.Policy)
	}
	d.notify(daemon.SdNotifyReady)
}

// takeAnew does first what may fail: the rest cannot.
func (d *server) takeAnew(ctx context.Context) error {
	n, err := d.readAnew(ctx)
	if err != nil {
		return err
	}
	undo, err := d.supply.Reload()
	if err != nil {
		return err
	}
	if _, err := d.store.Configure(ctx, n.cfg.inForce); err != nil {
		return errors.Join(err, undo())
	}
	d.cert.current.Store(n.identity)
	d.cert.clients.Store(n.clients)
	n.use()
	d.took(n.cfg)
	return nil
}

func (d *server) readAnew(ctx context.Context) (n anew, err error) {
	if n.cfg, err = d.reread(); err != nil {
		return n, err
	}
	if d.cfg.says && !n.cfg.says {
		return n, hint.With(errors.New("the configuration says nothing"), "is it whole? A server that shall have the defaults alone is to be restarted")
	}
	// What the store remembers may be another server's.
	if err := n.cfg.inForce.Follows(d.cfg.inForce); err != nil {
		return n, err
	}
	if n.identity, err = d.cert.readAnew(time.Now()); err != nil {
		return n, err
	}
	if n.clients, err = clientRoots(n.cfg.ClientCA); err != nil {
		return n, err
	}
	p, err := n.cfg.policy()
	if err != nil {
		return n, err
	}
	m, err := meant(ctx, d.store, n.cfg, "")
	if err = errors.Join(err, m.unmeant); err != nil {
		return n, err
	}
	n.cfg.inForce.Tenants = m.tenants
	n.use, err = d.api.Prepare(p, n.cfg.table, m.list, n.clients)
	return n, err
}

// took tells what is in use now.
func (d *server) took(cfg Config) {
	before := d.cfg
	d.cfg.ClientCA, d.cfg.Clients, d.cfg.Policy, d.cfg.says, d.cfg.inForce, d.cfg.table = cfg.ClientCA, cfg.Clients, cfg.Policy, cfg.says, cfg.inForce, cfg.table
	if !reflect.DeepEqual(cfg, d.cfg) {
		d.log.Warn("the configuration has changed in more than client_ca, clients and [policy]: the rest waits for a restart")
	}
	warnOfEndorsements(d.log, d.supply)
	d.warnOfExpiry()
	say := d.log.Info
	if before.inForce != cfg.inForce {
		say = d.log.Warn
	}
	say("read again: "+cfg.inForce.Change(before.inForce), "certificate_expires", d.cert.current.Load().Leaf.NotAfter,
		"endorsements", len(d.supply.List()), "clients", len(cfg.Clients))
}

// settle remembers what this server starts with. A policy that was in force
// when it ended, and is not there now, stops it.
func (d *server) settle(ctx context.Context, checkOnly bool) error {
	before, err := d.store.Configured(ctx)
	if err != nil {
		return err
	}
	if checkOnly {
		return d.cfg.inForce.Follows(before)
	}
	if before, err = d.store.Configure(ctx, d.cfg.inForce); err != nil {
		return err
	}
	say := d.log.Info // several servers on one database have a file each
	if before.Policy != d.cfg.inForce.Policy {
		say = d.log.Warn
	}
	if before.Policy != d.cfg.inForce.Policy || before.Configuration != d.cfg.inForce.Configuration || before.Advisories != d.cfg.inForce.Advisories {
		say("started with another configuration than was in force last: " + d.cfg.inForce.Change(before))
	}
	return nil
}
