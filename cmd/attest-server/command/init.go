package command

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
)

func (p Program) initCommand() *cli.Command {
	return &cli.Command{
		Name:  "init",
		Usage: "create store, master key, TLS identity and the first admin token",
		Description: "DIR must not exist, or be empty. The token is printed once, on standard output, and stored only as\n" +
			"a hash. ca.pem in DIR is public: give it to `ccrun build --attest-ca` and to `--ca`. The master key goes\n" +
			"into DIR; wrapped, if --config has [transit]; or where --master-key-out says, e.g. to the TPM:\n   " +
			p.Name + " init --token-out FILE --master-key-out - |\n      systemd-creds encrypt --with-key=tpm2 --name=master-key - /etc/attest-server/master-key.cred\n\nExample:\n   " +
			p.Name + " init --data /var/lib/attest-server --name keys.example.com --name 192.0.2.7",
		Flags: []cli.Flag{
			configFlag(), dataFlag(),
			&cli.StringSliceFlag{Name: "name", Usage: "DNS `NAME` or IP address of this server (repeatable; localhost is always one)"},
			&cli.StringFlag{Name: "token-out", Usage: "write the admin token to a new `FILE`, mode 0600, instead of standard output"},
			masterKeyOutFlag(),
		},
		Action: p.initialize,
	}
}

func (p Program) initialize(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	if err := checkNames("--name", c.StringSlice("name")); err != nil {
		return err
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	place, err := newMasterKeyPlace(c, cfg)
	if err != nil {
		return err
	}
	if place.out == "-" && c.String("token-out") == "" {
		return face.Usagef("--master-key-out - needs --token-out: standard output holds one of the two")
	}
	dir, err := makeDir(cfg.Data)
	if err != nil {
		return err
	}
	token, err := fill(c.Context, dir, cfg, place, c.StringSlice("name"))
	if err == nil {
		err = handOut(c, token)
	}
	if err != nil {
		return dir.undo(errors.Join(err, place.takeBack()))
	}
	start := "--data " + cfg.Data
	if cfg.Database != "" {
		start = "--config " + c.String("config")
	}
	p.Note(c, "created %s; start it with `%s serve %s`", cfg.Data, p.Name, start)
	return nil
}

// fill puts everything into the new directory dir, and makes the first token.
func fill(ctx context.Context, dir *newDir, cfg Config, place *masterKeyPlace, names []string) (token secret.Bytes, err error) {
	master, err := masterkey.New(rand.Reader)
	if err != nil {
		return token, err
	}
	defer master.Wipe()
	if err := fillKeys(ctx, dir, place, master, names); err != nil {
		return token, err
	}
	if cfg.Database == "" {
		dir.files = append(dir.files, storeFiles()...)
	}
	s, err := cfg.createStore(ctx, master)
	if err != nil {
		return token, err
	}
	if _, err = s.SigningKey(ctx); err == nil {
		token, _, err = s.CreateToken(ctx, "", store.Admin, "first admin", time.Time{}, "local")
	}
	if err := errors.Join(err, s.Close(), dir.sync()); err != nil {
		return token, err
	}
	return token, place.hand(master)
}

// fillKeys puts the master key there, unless its place is elsewhere, and a new
// TLS identity.
func fillKeys(ctx context.Context, dir *newDir, place *masterKeyPlace, master secret.Bytes, names []string) error {
	id, err := newIdentity(names, time.Now(), rand.Reader)
	if err != nil {
		return err
	}
	if place.inDir() {
		b, err := place.content(ctx, master)
		if err != nil {
			return err
		}
		defer clear(b)
		if err := dir.write(masterkey.Name, bytes.NewReader(b), 0o600); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name string
		b    []byte
		mode fs.FileMode
	}{{caName, id.ca, 0o644}, {caKeyName, id.caKey, 0o600}, {serverName, id.chain, 0o644}, {serverKeyName, id.serverKey, 0o600}} {
		if err := dir.write(f.name, bytes.NewReader(f.b), f.mode); err != nil {
			return err
		}
	}
	return nil
}

// handOut gives the token out, this once.
func handOut(c *cli.Context, token secret.Bytes) error {
	defer token.Wipe()
	text := append(append([]byte{}, token.Reveal()...), '\n')
	defer clear(text)
	if out := c.String("token-out"); out != "" {
		return writeNew(out, text, 0o600)
	}
	if _, err := c.App.Writer.Write(text); err != nil {
		return fmt.Errorf("printing the token: %w", err)
	}
	return nil
}
