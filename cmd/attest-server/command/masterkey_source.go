package command

import (
	"os"

	"github.com/ccrun/ccrun/attest-server/masterkey"
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
