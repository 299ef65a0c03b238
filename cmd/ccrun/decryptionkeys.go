package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/source"
)

func decryptionKeyFlag() cli.Flag {
	return &cli.GenericFlag{Name: "decryption-key", Value: &stringList{},
		Usage: "`KEY` for an encrypted SOURCE, as skopeo takes it: FILE, FILE:file=PASSPHRASE_FILE, FILE:fd=NUMBER, provider:NAME; may be repeated"}
}

func decryptionKeys(c *cli.Context) (*source.DecryptionKeys, error) {
	specs := *c.Generic("decryption-key").(*stringList)
	if len(specs) == 0 {
		return nil, nil
	}
	var keys []source.DecryptionKey
	defer func() {
		for _, k := range keys {
			k.Passphrase.Wipe()
		}
	}()
	for _, s := range specs {
		k, err := parseDecryptionKey(s)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	return source.LoadDecryptionKeys(keys)
}

// parseDecryptionKey takes skopeo's forms, except those that hold the
// passphrase itself: every user of the machine can read arguments.
func parseDecryptionKey(spec string) (k source.DecryptionKey, err error) {
	if name, ok := strings.CutPrefix(spec, "provider:"); ok {
		k.Provider = name
		return k, nil
	}
	path, pass, ok := strings.Cut(spec, ":")
	k.Path = path
	if !ok {
		return k, nil
	}
	switch how, where, _ := strings.Cut(pass, "="); how {
	case "file":
		k.Passphrase, err = face.ReadSecretFile(where)
	case "fd":
		k.Passphrase, err = readSecretFD(where)
	default:
		return k, face.Usagef("--decryption-key %s: expected file=PASSPHRASE_FILE or fd=NUMBER after the colon: a passphrase in an argument can be read by others", path)
	}
	if err != nil {
		err = fmt.Errorf("reading the passphrase of --decryption-key %s: %w", path, err)
	}
	return k, err
}

func readSecretFD(number string) (secret.Bytes, error) {
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return secret.Bytes{}, face.Usagef("file descriptor %q: expected a number", number)
	}
	f := os.NewFile(uintptr(n), "passphrase")
	if f == nil {
		return secret.Bytes{}, face.Usagef("file descriptor %d is not open", n)
	}
	defer f.Close()
	return face.ReadSecret(f, f.Name())
}

// stringList is a repeated flag whose values may hold commas.
type stringList []string

// Set implements flag.Value.
func (l *stringList) Set(s string) error {
	*l = append(*l, s)
	return nil
}

// String implements flag.Value.
func (l *stringList) String() string { return strings.Join(*l, " ") }
