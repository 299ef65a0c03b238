package command

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func (p Program) serveCommand() *cli.Command {
	return &cli.Command{
		Name:  "serve",
		Usage: "answer guests and owners",
		Description: "Prints its URL on standard output once it listens, logs to standard error. SIGHUP reads the TLS\n" +
			"identity, endorsements, the roles of client certificates and [policy] again, all of them or, if one is\n" +
			"wrong, none; SIGTERM finishes answers under way and ends. Tells systemd when it is ready (Type=notify), takes a socket from it, and the master\n" +
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
			&cli.StringSliceFlag{Name: "witness", Usage: "`URL` of a witness beside those of the configuration: file:///DIR, https://OBJECT, or https://HOST#KEY (repeatable)"},
			&cli.StringFlag{Name: "witness-listen", Usage: "`ADDR`, HOST:PORT, to be a witness of witness_logs on (default: none)"},
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
	log, err := p.NewLog(c.App.ErrWriter, cfg.LogLevel, cfg.LogFormat)
	if err != nil {
		return err
	}
	reload := make(chan os.Signal, 1) // SIGHUP ends a process that does not catch it yet
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	d := &server{metrics: metrics.New(), cfg: cfg, log: log, reread: func() (Config, error) { return loadConfig(c) }}
	defer func() { err = errors.Join(err, d.close()) }()
	if !c.Bool("check-config") {
		if err := d.claim(); err != nil {
			return err
		}
	}
	if err := d.open(c, p); err != nil {
		return advise(c.String("config"), cfg.Database, err)
	}
	if err := d.settle(c.Context, c.Bool("check-config")); err != nil {
		return err
	}
	if d.unmeant != nil {
		// The rest of the server's owners must not go without it for one name.
		if c.Bool("check-config") {
			return d.unmeant
		}
		log.Error("client certificates of nobody: they are refused", "error", d.unmeant, "hint", hint.Of(d.unmeant))
	}
	if c.Bool("check-config") {
		err := d.api.Unsatisfiable(c.Context, func(workload string, err error) {
			log.Warn("a workload can never attest", "workload", workload, "error", err)
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.App.Writer, "configuration is right")
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
	if cfg.MetricsListen != "" {
		if d.scraping, err = serveMetrics(cfg.MetricsListen, d.metrics.Handler(), log); err != nil {
			return err
		}
	}
	if cfg.WitnessListen != "" {
		d.witnessing, err = startWitness(inDir(cfg.Data, witnessDirName), cfg.WitnessName, cfg.WitnessListen, cfg.WitnessLogs, d.cert.config(), log)
		if err != nil {
			return err
		}
	}
	return d.run(c.Context, listeners, reload)
}
