package command

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
)

const (
	witnessDirName = "witness"
	witnessKeyName = "witness.key"
)

// witnessing is a witness for other servers' logs that runs.
type witnessing struct {
	http    *http.Server
	memory  *witness.Memory
	address net.Addr
	key     checkpoint.Verifier
	ended   chan error
}

// startWitness runs the witness called name, whose memory and key are in dir.
// identity nil: plain HTTP, and an empty host is loopback. All that goes over it
// is signed and no secret.
func startWitness(dir, name, address string, logs []string, identity *tls.Config, log *slog.Logger) (*witnessing, error) {
	s := &witness.Server{Log: log}
	for _, text := range logs {
		k, err := checkpoint.ParseLogKey(text)
		if err != nil {
			return nil, face.Usagef("log to witness: %w", err)
		}
		s.Logs = append(s.Logs, k)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || name == "" || len(logs) == 0 {
		return nil, face.Usagef("a witness needs a name, the keys of the logs that it witnesses, and HOST:PORT to listen on, got %q, %d keys and %q", name, len(logs), address)
	}
	if s.Memo, err = witness.OpenMemory(dir); err != nil {
		return nil, err
	}
	w := &witnessing{http: s.HTTP(), memory: s.Memo, ended: make(chan error, 1)}
	if s.Signer, err = witnessSigner(dir, name); err != nil {
		return nil, errors.Join(err, s.Memo.Close())
	}
	w.key = s.Signer.Verifier()
	if identity == nil {
		host = cmp.Or(host, "localhost")
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, errors.Join(notListening("--witness-listen", address, err), s.Memo.Close())
	}
	if w.address = l.Addr(); identity != nil {
		l = tls.NewListener(l, identity)
	}
	log.Info("witnessing", "address", w.address.String(), "key", w.key.String(), "logs", len(logs))
	go func() { w.ended <- w.http.Serve(l) }()
	return w, nil
}

func (w *witnessing) close() error {
	ctx, end := context.WithTimeout(context.Background(), 5*time.Second)
	defer end()
	return errors.Join(w.http.Shutdown(ctx), w.memory.Close())
}

// witnessSigner is the witness's key in dir, which is made if there is none. A
// witness whose memory is there and whose key is not has lost it.
func witnessSigner(dir, name string) (*checkpoint.Signer, error) {
	path := inDir(dir, witnessKeyName)
	b, err := bounded.File(path, 4096)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = newWitnessKey(); err == nil {
			err = errors.Join(writeNew(path, b, 0o600), syncDir(dir))
		}
	}
	defer clear(b)
	if err != nil {
		return nil, fmt.Errorf("reading the witness's key: %w", err)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("reading the witness's key %s: expected one PEM block PRIVATE KEY", path)
	}
	defer clear(block.Bytes)
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := k.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("reading the witness's key %s: no Ed25519 key in it", path)
	}
	return checkpoint.WitnessSigner(name, private, time.Now)
}

func newWitnessKey() ([]byte, error) {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	defer clear(der)
	return encode("PRIVATE KEY", der), err
}

func (p Program) witnessCommand() *cli.Command {
	return &cli.Command{
		Name: "witness", Usage: "remember the heads of other servers' audit logs, and sign what only grows",
		Description: "Speaks C2SP tlog-witness. Prints its key, which the other servers' configurations name, and then its URL.\n" +
			"What it has signed it remembers in DIR: put no old copy of that back. `serve --witness-listen` is the same\n" +
			"beside a server.\n\nExample:\n   " + p.Name + " witness --data /var/lib/witness --name witness.example.com --listen :8444 \\\n" +
			"      --tls-cert witness.pem --tls-key witness.key --log ccrun/attest-server/0123456789abcdef+01234567+AQ...",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "data", Value: "/var/lib/attest-witness", Usage: "`DIR` for its key and what it has seen"},
			&cli.StringFlag{Name: "name", Required: true, Usage: "`NAME` that it signs with, such as its host's"},
			&cli.StringSliceFlag{Name: "log", Required: true, Usage: "`KEY` of a log to witness, as `audit key` prints it (repeatable)"},
			&cli.StringFlag{Name: "listen", Value: ":8444", Usage: "`ADDR`, HOST:PORT; without TLS an empty HOST is loopback"},
			&cli.StringFlag{Name: "tls-cert", Usage: "PEM `FILE`: chain, leaf first (default: plain HTTP; all that is said is signed)"},
			&cli.StringFlag{Name: "tls-key", Usage: "PEM `FILE`"},
			&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT`: text or json"},
		},
		Action: p.witness,
	}
}

func (p Program) witness(c *cli.Context) (err error) {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	log, err := p.NewLog(c.App.ErrWriter, cmp.Or(face.LogLevel(c), "info"), c.String("log-format"))
	if err != nil {
		return err
	}
	var identity *tls.Config
	scheme := "http"
	if c.String("tls-cert")+c.String("tls-key") != "" {
		pair, err := tls.LoadX509KeyPair(c.String("tls-cert"), c.String("tls-key"))
		if err != nil {
			return fmt.Errorf("reading TLS identity: %w", err)
		}
		identity, scheme = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, "https"
	}
	w, err := startWitness(c.String("data"), c.String("name"), c.String("listen"), c.StringSlice("log"), identity, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	if _, err := fmt.Fprintf(c.App.Writer, "%s\n%s://%s\n", w.key, scheme, w.address); err != nil {
		return err
	}
	select {
	case err := <-w.ended:
		return fmt.Errorf("witnessing: %w", err)
	case <-c.Context.Done():
		return nil
	}
}
