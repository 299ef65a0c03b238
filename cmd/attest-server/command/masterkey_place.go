package command

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/masterkey/transit"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
)

// masterKeyPlace is where a new MasterKey goes: to out, a new file or "-" for
// standard output; or wrapped by transit, or as it is, into the data directory.
type masterKeyPlace struct {
	out     string
	stdout  io.Writer
	transit *transit.Client // nil: none
	handed  bool            // a new file out is there
}

func masterKeyOutFlag() cli.Flag {
	return &cli.StringFlag{Name: "master-key-out", Usage: "write the master key to a new `FILE` outside DIR, or \"-\": to standard output, a pipe into `systemd-creds encrypt`"}
}

func newMasterKeyPlace(c *cli.Context, cfg Config) (*masterKeyPlace, error) {
	p := &masterKeyPlace{out: c.String("master-key-out"), stdout: c.App.Writer}
	if p.out == "-" {
		if f, ok := p.stdout.(*os.File); ok && isTerminal(f) {
			return p, face.Usagef("--master-key-out -: standard output is a terminal: pipe it into `systemd-creds encrypt --name=%s - FILE`", masterkey.Name)
		}
	}
	t, err := cfg.Transit.open()
	if t != nil && p.out != "" {
		return p, face.Usagef("--master-key-out with [transit]: the key is either handed out or wrapped")
	}
	p.transit = t
	return p, err
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// inDir says whether the key's place is DIR.
func (p *masterKeyPlace) inDir() bool { return p.out == "" }

// content is what DIR's file of the key holds.
func (p *masterKeyPlace) content(ctx context.Context, master secret.Bytes) ([]byte, error) {
	if p.transit == nil {
		return append([]byte{}, master.Reveal()...), nil
	}
	ciphertext, err := p.transit.Wrap(ctx, master)
	if err != nil {
		return nil, err
	}
	return masterkey.Wrapped(ctx, p.transit, ciphertext, master)
}

// hand gives the key out, if its place is not DIR.
func (p *masterKeyPlace) hand(master secret.Bytes) error {
	switch p.out {
	case "":
		return nil
	case "-":
		if _, err := p.stdout.Write(master.Reveal()); err != nil {
			return fmt.Errorf("handing out the master key: %w", err)
		}
		return nil
	}
	if err := writeNew(p.out, master.Reveal(), 0o600); err != nil {
		return fmt.Errorf("writing master key: %w", err)
	}
	p.handed = true
	return nil
}

// takeBack removes the file that was handed out, if there is one.
func (p *masterKeyPlace) takeBack() error {
	if !p.handed {
		return nil
	}
	return os.Remove(p.out)
}
