package command

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

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

// fromOutside says whether the MasterKey in use is not DIR's own.
func fromOutside(s masterkey.Source) (bool, error) {
	if s.File != "" || s.Stdin != nil {
		return true, nil
	}
	if s.Credentials == "" {
		return false, nil
	}
	_, err := os.Stat(filepath.Join(s.Credentials, masterkey.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
