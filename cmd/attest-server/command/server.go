package command

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	attestserver "github.com/ccrun/ccrun/attest-server"
	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/web"
	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/secret"
)

// server is a running attest-server.
type server struct {
	cfg   Config
	log   *slog.Logger
	store *store.DB
	// claimed is the data directory, locked; nil before claim, or with PostgreSQL.
	claimed *os.File
	cert    certificate
	http    *http.Server
	api     *attestserver.Server

	reread  func() (Config, error) // the configuration as it is now
	unmeant error                  // client certificates of tenants that were not there at start
	// limited is a listener without those who flood it.
	limited func(net.Listener) net.Listener

	supply     *endorsements.Supply
	anchor     *witness.Anchor // nil: no witnesses
	witnessing *witnessing     // nil: of nobody

	metrics  *metrics.Registry
	scraping *http.Server       // nil: none
	end      context.CancelFunc // ends what goes on until close; nil before open
}

// open makes everything ready to serve.
func (d *server) open(c *cli.Context, p Program) error {
	master, err := d.openStore(c)
	if err != nil {
		return err
	}
	verifiers, err := d.openVerifiers(c, p)
	if err != nil {
		return err
	}
	if err := d.openIdentity(); err != nil {
		return err
	}
	sc, err := d.parts(c.Context)
	if err != nil {
		return err
	}
	sc.Verifiers = verifiers
	if d.cfg.WebPage == nil || *d.cfg.WebPage {
		if sc.Pages, err = webPage(master, web.Options{Store: d.store.Auditors(), Log: d.log, Notice: p.Notice, Expiries: d.expiries, Witnesses: d.witnesses}); err != nil {
			return err
		}
	}
	if d.api, err = attestserver.New(sc); err != nil {
		return err
	}
	d.http, d.limited = d.api.HTTPServer(), d.api.Listener
	return nil
}

// openStore opens the store and returns its MasterKey, which stays in memory,
// as what is derived from it does: a rotation's next key is sealed under it.
func (d *server) openStore(c *cli.Context) (secret.Bytes, error) {
	keys, err := masterKeySource(d.cfg, "")
	if err != nil {
		return secret.Bytes{}, err
	}
	master, err := keys.Load(c.Context)
	if err != nil {
		return master, err
	}
	// A rotation may also end while the last answers are given.
	life, end := context.WithCancel(context.WithoutCancel(c.Context))
	d.end = end
	d.store, err = d.awaitStore(c, store.Options{
		MasterKey:        master,
		ReloadMasterKeys: func() ([]secret.Bytes, error) { return keys.Reload(life, master) },
		SessionRecords:   d.cfg.SessionRecords,
	})
	if err != nil {
		return master, err
	}
	if err := keys.Settle(c.Context, master); err != nil {
		d.log.Warn("a rotation of the master key has left its next key behind", "error", err)
	}
	return master, nil
}

func (d *server) openVerifiers(c *cli.Context, p Program) (_ map[kbs.TEE]verifier.Verifier, err error) {
	if d.supply, err = openSupply(d.cfg); err != nil {
		return nil, err
	}
	warnOfEndorsements(d.log, d.supply)
	return p.Verifiers(c, Endorsements{Supply: d.supply, RequireCRL: d.cfg.RequireCRL})
}

// openIdentity reads the TLS identity, and whose client certificates count.
func (d *server) openIdentity() error {
	d.cert.certFile, d.cert.keyFile = d.cfg.TLSCert, d.cfg.TLSKey
	if d.cert.certFile == "" {
		d.cert.certFile, d.cert.keyFile = inDir(d.cfg.Data, serverName), inDir(d.cfg.Data, serverKeyName)
	}
	identity, err := d.cert.read()
	if err != nil {
		return err
	}
	clients, err := clientRoots(d.cfg.ClientCA)
	if err != nil {
		return err
	}
	if info, err := os.Stat(d.cert.keyFile); err == nil && info.Mode().Perm()&0o007 != 0 {
		d.log.Warn("the TLS key can be read by everybody on this machine: run chmod 0600 on it, then `certs renew`", "file", d.cert.keyFile, "mode", info.Mode().Perm())
	}
	d.cert.current.Store(identity)
	d.cert.clients.Store(clients)
	d.warnOfExpiry()
	return nil
}

// parts is what the server is made of, but for verifiers and pages.
func (d *server) parts(ctx context.Context) (sc attestserver.Config, err error) {
	sc = d.cfg.server()
	if sc.Limits, err = withinFiles(sc.Limits); err != nil {
		return sc, err
	}
	sc.Owners, sc.Auditors = d.store.Owners(), d.store.Auditors()
	sc.Store, sc.Clock, sc.Rand, sc.Log = d.store, time.Now, rand.Reader, d.log
	if err := d.openAnchor(); err != nil {
		return sc, err
	}
	if d.anchor != nil {
		sc.Anchor = d.anchor
	}
	sc.Metrics, sc.ClientRoots = d.metrics, d.cert.clients.Load()
	m, err := meantAtStart(ctx, d.store, d.cfg)
	if err != nil {
		return sc, err
	}
	sc.Clients, d.cfg.inForce.Tenants, d.unmeant = m.list, m.tenants, m.unmeant
	showExpiries(d.metrics, d.expiries)
	if sc.Policy, err = d.cfg.policy(); err != nil {
		return sc, err
	}
	sc.Advisories = d.cfg.table
	if sc.SigningKey, err = d.store.SigningKey(ctx); err != nil {
		return sc, err
	}
	if sc.RenewalSecret, err = d.store.RenewalSecret(ctx); err != nil {
		return sc, err
	}
	return sc, d.share(ctx, &sc)
}

// openAnchor has the anchor hold the store to what its witnesses have seen, if
// there are any.
func (d *server) openAnchor() (err error) {
	all, err := openWitnesses(d.cfg.Witness, d.cfg.WitnessOptional)
	if err != nil || len(all) == 0 {
		return err
	}
	d.anchor, err = witness.NewAnchor(d.store, all, d.log)
	return err
}

// close ends what open began, however far that came.
func (d *server) close() error {
	var errs []error
	if d.scraping != nil {
		errs = append(errs, d.scraping.Close())
	}
	if d.witnessing != nil {
		errs = append(errs, d.witnessing.close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.end != nil {
		d.end()
	}
	if d.claimed != nil {
		errs = append(errs, d.claimed.Close())
	}
	return errors.Join(errs...)
}

// expiries is the certificates in use.
func (d *server) expiries() []web.Expiry {
	return append(d.cert.expiries(), endorsementExpiries(d.supply)...)
}

// witnesses is what they say of the audit log, if there are any.
func (d *server) witnesses() web.Witnesses {
	if d.anchor == nil {
		return web.Witnesses{}
	}
	return shownWitnesses(d.anchor.Said(), d.anchor.Ready())
}

func (d *server) warnOfExpiry() {
	now := time.Now()
	switch until, soon := d.cert.expiresSoon(now); {
	case now.After(until):
		d.log.Error("the TLS certificate has EXPIRED: guests go on, owners' tools and browsers will refuse it; if the clock is right, run `certs renew` where ca.key is, then reload", "expired", until)
	case soon:
		d.log.Warn("the TLS certificate expires soon: run `certs renew` where ca.key is, then reload", "expires", until)
	}
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
