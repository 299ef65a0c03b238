package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
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
	dir := cfg.Data
	made, err := makeDir(dir)
	if err != nil {
		return err
	}
	token, files, err := create(c.Context, cfg, place, c.StringSlice("name"))
	if err == nil {
		err = handOut(c, token)
	}
	if err != nil {
		return errors.Join(err, undo(dir, made, files))
	}
	start := "--data " + dir
	if cfg.Database != "" {
		start = "--config " + c.String("config")
	}
	p.face().Note(c, "created %s; start it with `%s serve %s`", dir, p.Name, start)
	return nil
}

// create fills dir and makes the first token. files are what it made, also on
// error.
func create(ctx context.Context, cfg Config, place masterKeyPlace, names []string) (token secret.Bytes, files []string, err error) {
	dir := cfg.Data
	master, err := masterkey.New(rand.Reader)
	if err != nil {
		return secret.Bytes{}, nil, err
	}
	defer master.Wipe()
	write := func(path string, b []byte, mode fs.FileMode) {
		if err == nil {
			if err = writeNew(path, b, mode); err == nil {
				files = append(files, path)
			}
		}
	}
	id, err := newIdentity(names, time.Now(), rand.Reader)
	if err == nil && place.inDir() {
		var b []byte
		b, err = place.content(ctx, master)
		write(inDir(dir, masterkey.Name), b, 0o600)
		clear(b)
	}
	if err == nil {
		write(inDir(dir, caName), id.ca, 0o644)
		write(inDir(dir, caKeyName), id.caKey, 0o600)
		write(inDir(dir, serverName), id.chain, 0o644)
		write(inDir(dir, serverKeyName), id.key, 0o600)
	}
	if err != nil {
		return secret.Bytes{}, files, err
	}
	s, stored, err := cfg.createStore(ctx, store.Options{MasterKey: master, Rand: rand.Reader, Clock: time.Now})
	files = append(files, stored...)
	if err != nil {
		return secret.Bytes{}, files, err
	}
	if _, err := s.SigningKey(ctx); err != nil {
		return secret.Bytes{}, files, errors.Join(err, s.Close())
	}
	token, _, err = s.CreateToken(ctx, "", store.Admin, "first admin", time.Time{}, "local")
	err = errors.Join(err, s.Close(), syncDir(dir), syncDir(filepath.Dir(filepath.Clean(dir))))
	if err == nil {
		err = place.hand(master)
	}
	if err == nil && place.out != "" && place.out != "-" {
		files = append(files, place.out)
	}
	return token, files, err
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
