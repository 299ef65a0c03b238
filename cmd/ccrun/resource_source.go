package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/cmd/vault"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// valueOf is the resource's value, from where the flags say.
func valueOf(c *cli.Context) (secret.Bytes, error) {
	from, file := c.String("from"), c.String("from-file")
	if (from == "") == (file == "") {
		return secret.Bytes{}, face.Usagef("expected one of --from SOURCE and --from-file FILE")
	}
	if file != "" {
		return valueOfFile(c, "--from-file", file)
	}
	switch kind, name, _ := strings.Cut(from, ":"); {
	case kind == "file" && name != "":
		return valueOfFile(c, "--from", name)
	case kind == "vault":
		return valueOfVault(c, name)
	}
	return secret.Bytes{}, face.Usagef("--from %.80q, expected vault:MOUNT/PATH#FIELD or file:PATH", from)
}

func valueOfFile(c *cli.Context, flag, path string) (secret.Bytes, error) {
	b, err := face.Read(c, path, kbs.MaxResourceBytes)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading %s: %w", flag, err)
	}
	if len(b) == 0 {
		return secret.Bytes{}, fmt.Errorf("reading %s: %s is empty, expected 1 to %d bytes", flag, path, kbs.MaxResourceBytes)
	}
	return secret.New(b), nil
}

// valueOfVault reads what Vault or OpenBao keeps, found as their own command line
// finds them, but for the token: an environment is no place for one.
func valueOfVault(c *cli.Context, s string) (secret.Bytes, error) {
	name, err := vault.ParseName(s)
	if err != nil {
		return secret.Bytes{}, err
	}
	client := vault.Client{Address: os.Getenv("VAULT_ADDR"), Namespace: os.Getenv("VAULT_NAMESPACE")}
	if ca := os.Getenv("VAULT_CACERT"); ca != "" {
		if client.Roots, err = face.Roots("VAULT_CACERT", ca); err != nil {
			return secret.Bytes{}, err
		}
	}
	if client.Token, err = vaultToken(); err != nil {
		return secret.Bytes{}, fmt.Errorf("reading the token for %s: %w", name, err)
	}
	defer client.Token.Wipe()
	return client.Field(c.Context, name, kbs.MaxResourceBytes)
}

func vaultToken() (secret.Bytes, error) {
	home, err := os.UserHomeDir()
	path := os.Getenv("VAULT_TOKEN_FILE")
	if path == "" && err != nil {
		return secret.Bytes{}, err
	}
	t, err := face.ReadForeignToken(cmp.Or(path, filepath.Join(home, ".vault-token")))
	if errors.Is(err, fs.ErrNotExist) {
		err = hint.With(err, "`vault login` and `bao login` write ~/.vault-token; VAULT_TOKEN_FILE names another file; VAULT_TOKEN is not read, since others see environments")
	}
	return t, err
}
