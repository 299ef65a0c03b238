package command

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	attestserver "github.com/ccrun/ccrun/attest-server"
	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func (p Program) moveCommand() *cli.Command {
	return &cli.Command{
		Name:  "move",
		Usage: "stand at the old address of a server that has moved, and send guests on",
		Description: "Answers every request with where the server is now, under the TLS identity that guests pin. It has\n" +
			"neither store nor master key, and needs nothing of the data directory but server.pem and server.key. Guests\n" +
			"follow it once: if the server moves again, name its last address here. Prints its URL once it listens; SIGHUP\n" +
			"reads the TLS identity again. docs/operations.md has the whole move.\n\nExample:\n   " +
			p.Name + " move --data /var/lib/attest-server --to https://new.example.com:8443 --ca new-ca.pem",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "to", Usage: "`URL` of the server now, as guests reach it; may be repeated, tried in order"},
			&cli.StringSliceFlag{Name: "pin", Usage: "SHA-256 of its or its CA's public key (SubjectPublicKeyInfo), `HEX`; may be repeated"},
			&cli.StringFlag{Name: "ca", Usage: "PEM `FILE` of certificates, its CA's for example, whose keys are pinned"},
			&cli.BoolFlag{Name: "unseen", Usage: "start although no server answers at --to yet"},
			&cli.StringFlag{Name: "listen", Value: ":8443", Usage: "`ADDR`, HOST:PORT"},
			dataFlag(),
			&cli.StringFlag{Name: "tls-cert", Usage: "PEM `FILE`: chain, leaf first (default: server.pem in DIR)"},
			&cli.StringFlag{Name: "tls-key", Usage: "PEM `FILE` (default: server.key in DIR)"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT`: text or json"},
		},
		Action: p.move,
	}
}

func (p Program) move(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	to, err := destination(c)
	if err != nil {
		return err
	}
	log, err := p.NewLog(c.App.ErrWriter, cmp.Or(face.LogLevel(c), "info"), c.String("log-format"))
	if err != nil {
		return err
	}
	d := &server{log: log, cfg: Config{Data: c.String("data"), TLSCert: c.String("tls-cert"), TLSKey: c.String("tls-key")}}
	if (d.cfg.TLSCert == "") != (d.cfg.TLSKey == "") {
		return face.Usagef("--tls-cert without --tls-key, or the other way round: both or neither")
	}
	if err := d.openIdentity(); err != nil {
		return err
	}
	if err := probe(c.Context, to, c.Bool("unseen"), log); err != nil {
		return err
	}
	moved, err := attestserver.NewMoved(attestserver.MovedConfig{To: to, Clock: time.Now, Log: log})
	if err != nil {
		return err
	}
	d.http, d.limited = moved.HTTPServer(), moved.Listener
	return d.stand(c)
}

// destination is what the flags say of where the server is now.
func destination(c *cli.Context) (to kbs.Move, err error) {
	to = kbs.Move{URLs: c.StringSlice("to"), PinnedKeys: c.StringSlice("pin")}
	if path := c.String("ca"); path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return to, fmt.Errorf("reading --ca: %w", err)
		}
		pins, err := kbs.PinsFromPEM(b)
		if err != nil {
			return to, fmt.Errorf("reading --ca %s: %w", path, err)
		}
		to.PinnedKeys = append(to.PinnedKeys, pins...)
	}
	if len(to.URLs) == 0 || len(to.PinnedKeys) == 0 {
		return to, face.Usagef("where to? --to URL, and --pin HEX or --ca FILE, are needed")
	}
	if err := to.Check(); err != nil {
		return to, face.Usagef("%v", err)
	}
	return to, nil
}

// probeTime is how long a server has for its handshake.
const probeTime = 10 * time.Second

// probe says whether a guest could go where it is sent: at one of the addresses
// a server has to answer, and at none may it be another.
func probe(ctx context.Context, to kbs.Move, unseen bool, log *slog.Logger) error {
	pins, err := kbs.ParsePins(to.PinnedKeys)
	if err != nil {
		return err
	}
	var failed []error
	for _, u := range to.URLs {
		ctx, cancel := context.WithTimeout(ctx, probeTime)
		err := pins.Probe(ctx, u)
		cancel()
		if err == nil {
			continue
		}
		err = fmt.Errorf("trying %s: %w", u, err)
		if errors.Is(err, kbs.ErrUnpinned) {
			return hint.With(err, "`attest-server certs ls` there shows its pins; name one with --pin, or its CA with --ca")
		}
		log.Warn("no answer from where guests are sent", "url", u, "error", err)
		failed = append(failed, err)
	}
	if len(failed) == len(to.URLs) && !unseen {
		return hint.With(errors.Join(failed...), "start the server there first; --unseen goes on without")
	}
	return nil
}

// stand serves until SIGTERM, with the store that it has not.
func (d *server) stand(c *cli.Context) error {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	listeners, err := listen(c.String("listen"))
	if err != nil {
		return err
	}
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		fmt.Fprintf(c.App.Writer, "https://%s\n", l.Addr())
		go func() { failed <- d.http.Serve(tls.NewListener(d.limited(l), answer.InTurn(d.cert.config()))) }()
	}
	go d.watch(c.Context)
	d.notify(daemon.SdNotifyReady)
	for {
		select {
		case <-reload:
			if next, err := d.cert.readAnew(time.Now()); err != nil {
				d.log.Error("keeping the TLS identity in use: the reload is refused", "error", err, "hint", hint.Of(err))
			} else {
				d.cert.current.Store(next)
			}
		case err := <-failed:
			return errors.Join(fmt.Errorf("serving: %w", err), d.http.Close())
		case <-c.Context.Done():
			return d.drain(c.Context)
		}
	}
}
