package command

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	attestserver "github.com/ccrun/ccrun/attest-server"
	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
)

// drainTime is how long SIGTERM waits for answers under way.
const drainTime = 20 * time.Second

func (p Program) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "answer guests and owners",
		Description: "Prints its URL on standard output once it listens, logs to standard error. SIGHUP reads the TLS\n" +
			"identity, endorsements, the roles of client certificates and [policy] again, SIGTERM finishes answers\n" +
			"under way and ends. Tells systemd when it is ready (Type=notify), takes a socket from it, and the master\n" +
			"key from the credential master-key.\n\nExample:\n   " +
			p.Name + " serve --data /var/lib/attest-server --listen :8443",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "TOML `FILE`; flags take precedence"},
			&cli.StringFlag{Name: "listen", Value: ":8443", Usage: "`ADDR`, HOST:PORT"},
			dataFlag(),
			&cli.StringFlag{Name: "tls-cert", Usage: "PEM `FILE`: chain, leaf first (default: server.pem in DIR)"},
			&cli.StringFlag{Name: "tls-key", Usage: "PEM `FILE` (default: server.key in DIR)"},
			&cli.StringSliceFlag{Name: "dialect", Value: cli.NewStringSlice("native", "trustee"), Usage: "`PROTOCOL` to speak: native, trustee or legacy (repeatable)"},
			&cli.StringFlag{Name: "endorsements", Usage: "`DIR` of vendor certificates, CRLs and TDX collateral"},
			&cli.BoolFlag{Name: "endorsements-online", Usage: "fetch from AMD and Intel what is missing there, and renew it"},
			&cli.StringFlag{Name: "metrics-listen", Usage: "`ADDR`, HOST:PORT, for Prometheus: plain HTTP, an empty HOST is loopback (default: none)"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT`: text or json"},
			&cli.BoolFlag{Name: "check-config", Usage: "read everything, say whether it is right, and end"},
		}, p.ServeFlags...),
		Action: p.serve,
	}
}

func (p Program) serve(c *cli.Context) (err error) {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	cfg, err := loadConfig(c)
	if err != nil {
		return err
	}
	log, err := p.face().NewLog(c.App.ErrWriter, cfg.LogLevel, cfg.LogFormat)
	if err != nil {
		return err
	}
	d := &server{metrics: metrics.New(), cfg: cfg, log: log, reread: func() (Config, error) { return loadConfig(c) }}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.open(c, p); err != nil {
		return err
	}
	if c.Bool("check-config") {
		if err := d.warnOfWorkloads(c.Context); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.App.Writer, "configuration is right")
		return err
	}
	listeners, err := listen(cfg.Listen)
	if err != nil {
		return err
	}
	for _, l := range listeners {
		log.Info("listening", "address", l.Addr().String(), "data", cfg.Data)
		fmt.Fprintf(c.App.Writer, "https://%s\n", l.Addr())
	}
	if err := d.serveMetrics(); err != nil {
		return err
	}
	return d.run(c.Context, listeners)
}

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
			return keys.Reload(context.Background(), master)
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
// a server of 5 MiB would collect after every dozen of handshakes.
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
	go d.supply.Run(ctx, d.renewed)
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
			return d.drain()
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
	d.reloadEndorsements()
	if err := d.reloadClients(); err != nil {
		d.log.Error("keeping the client certificates accepted so far", "error", err)
	}
	d.reloadPolicy()
	d.notify(daemon.SdNotifyReady)
}

// reloadClients takes client_ca and clients as the configuration has them now.
// Who is in the list no more is refused at once, also on connections that are
// open.
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

func (d *server) warnOfExpiry() {
	if until, soon := d.cert.expiresSoon(time.Now()); soon {
		d.log.Warn("the TLS certificate expires soon: run `certs renew` where ca.key is, then reload", "expires", until)
	}
}

func (d *server) drain() error {
	d.notify(daemon.SdNotifyStopping)
	d.log.Info("stopping")
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
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
