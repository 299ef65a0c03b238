package command

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/urfave/cli/v2"

	attestserver "github.com/ccrun/ccrun/attest-server"
	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/secret"
)

// server is a running attest-server.
type server struct {
	cfg   Config
	log   *slog.Logger
	store *store.DB
	cert  certificate
	http  *http.Server
	api   *attestserver.Server

	reread func() (Config, error) // the configuration as it is now
	// limited is a listener without those who flood it.
	limited func(net.Listener) net.Listener

	supply *verifier.Supply

	metrics  *metrics.Registry
	scraping *http.Server // nil: none
}

func (d *server) open(c *cli.Context, p Program) error {
	keys, err := masterKeySource(d.cfg, "")
	if err != nil {
		return err
	}
	// The key stays in memory, as what is derived from it does: a rotation's
	// next key is sealed under it.
	master, err := keys.Load(c.Context)
	if err != nil {
		return err
	}
	d.store, err = d.awaitStore(c, store.Options{
		MasterKey: master, ReloadMasterKeys: func() ([]secret.Bytes, error) {
			return keys.Reload(c.Context, master)
		},
		Rand: rand.Reader, Clock: time.Now, SessionRecords: d.cfg.SessionRecords,
	})
	if err != nil {
		return err
	}
	if err := keys.Settle(c.Context, master); err != nil {
		d.log.Warn("a rotation of the master key has left its next key behind", "error", err)
	}
	if d.supply, err = openSupply(d.cfg); err != nil {
		return err
	}
	verifiers, err := p.Verifiers(c, Endorsements{Supply: d.supply, RequireCRL: d.cfg.RequireCRL})
	if err != nil {
		return err
	}
	d.cert.certFile, d.cert.keyFile = d.cfg.TLSCert, d.cfg.TLSKey
	if d.cert.certFile == "" {
		d.cert.certFile, d.cert.keyFile = inDir(d.cfg.Data, serverName), inDir(d.cfg.Data, serverKeyName)
	}
	if err := d.cert.load(time.Now()); err != nil {
		return err
	}
	if err := d.cert.loadClients(d.cfg.ClientCA); err != nil {
		return err
	}
	d.warnOfExpiry()
	d.warnOfEndorsements()
	sc := d.cfg.server()
	if sc.Policy, err = d.cfg.policy(); err != nil {
		return err
	}
	sc.Store, sc.Verifiers, sc.Clock, sc.Rand, sc.Log = d.store, verifiers, time.Now, rand.Reader, d.log
	if sc.SigningKey, err = d.store.SigningKey(c.Context); err != nil {
		return err
	}
	if err := d.share(c.Context, &sc); err != nil {
		return err
	}
	sc.Metrics, sc.Expiries = d.metrics, d.expiries
	if sc.Pages, err = d.page(master, p.Notice); err != nil {
		return err
	}
	s, err := attestserver.New(sc)
	if err != nil {
		return err
	}
	d.api, d.http, d.limited = s, s.HTTPServer(), s.Listener
	return nil
}

func (d *server) close() error {
	var err error
	if d.scraping != nil {
		err = d.scraping.Close()
	}
	if d.store == nil {
		return err
	}
	return errors.Join(err, d.store.Close())
}

// databaseWait is how long serve waits for its database: after a power cut
// both machines start at once. A file is there or not: no wait makes it usable.
const databaseWait = time.Minute

// awaitStore is openStore for a server that starts.
func (d *server) awaitStore(c *cli.Context, o store.Options) (*store.DB, error) {
	for end := time.Now().Add(databaseWait); ; {
		s, err := d.cfg.openStore(c.Context, o)
		if d.cfg.Database == "" || !errors.Is(err, store.ErrUnavailable) || c.Bool("check-config") || time.Now().After(end) {
			return s, err
		}
		d.log.Warn("waiting for the database", "error", err)
		select {
		case <-c.Context.Done():
			return nil, err
		case <-time.After(2 * time.Second):
		}
	}
}

// share has sessions shared among the servers on one database.
func (d *server) share(ctx context.Context, sc *attestserver.Config) error {
	if !d.store.Shared() {
		return nil
	}
	s, err := d.store.SessionSecret(ctx)
	if err != nil {
		return err
	}
	sc.Shared = &session.Shared{Secret: s, Store: d.store}
	warnings, err := d.store.Warnings(ctx)
	for _, w := range warnings {
		d.log.Warn("database: " + w)
	}
	return err
}
