package command

import (
	"context"
	"os"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// masterKeySource is where cfg says that the MasterKey is; file, if there is
// one, takes its place, "-" being standard input.
func masterKeySource(cfg Config, file string) (masterkey.Source, error) {
	s := masterkey.Source{File: file, Credentials: os.Getenv("CREDENTIALS_DIRECTORY"), Dir: cfg.Data}
	if file == "-" {
		s.File, s.Stdin = "", os.Stdin
	}
	t, err := cfg.Transit.open()
	if t != nil {
		s.Transit = t
	}
	return s, err
}

// loadMasterKey is the MasterKey where cfg says that it is.
func (cfg Config) loadMasterKey(ctx context.Context) (secret.Bytes, error) {
	from, err := masterKeySource(cfg, "")
	if err != nil {
		return secret.Bytes{}, err
	}
	return from.Load(ctx)
}
