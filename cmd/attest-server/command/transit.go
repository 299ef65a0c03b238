package command

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/attest-server/masterkey/transit"
)

// TransitConfig is the section [transit]. Address, Key and one way to log in
// are needed if any field is there.
type TransitConfig struct {
	// Address is https://HOST:PORT.
	Address string `toml:"address"`
	// Key is the transit key's name.
	Key string `toml:"key"`
	// Mount is the engine's path. Default "transit".
	Mount string `toml:"mount"`
	// Namespace is for Vault Enterprise and OpenBao. Default: none.
	Namespace string `toml:"namespace"`
	// CA is a PEM file to trust. Default: the system's authorities.
	CA string `toml:"ca"`
	// TokenFile holds a token. Default: systemd's credential transit-token, if
	// there is no RoleID.
	TokenFile string `toml:"token_file"`
	// RoleID and SecretIDFile log in by AppRole instead. Default of the file:
	// systemd's credential transit-secret-id.
	RoleID       string `toml:"role_id"`
	SecretIDFile string `toml:"secret_id_file"`
	// AppRoleMount is the login method's path. Default "approle".
	AppRoleMount string `toml:"approle_mount"`
}

// Credentials that systemd may pass.
const (
	transitTokenName    = "transit-token"
	transitSecretIDName = "transit-secret-id"
)

func (t TransitConfig) wanted() bool { return t != TransitConfig{} }

// open is nil if there is no section.
func (t TransitConfig) open() (*transit.Client, error) {
	if !t.wanted() {
		return nil, nil
	}
	cfg := transit.Config{
		Address: t.Address, Key: t.Key, Mount: t.Mount, Namespace: t.Namespace, CAFile: t.CA,
		TokenFile: t.TokenFile, RoleID: t.RoleID, SecretIDFile: t.SecretIDFile, AppRoleMount: t.AppRoleMount,
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		if cfg.RoleID != "" {
			cfg.SecretIDFile = cmp.Or(cfg.SecretIDFile, filepath.Join(dir, transitSecretIDName))
		} else {
			cfg.TokenFile = cmp.Or(cfg.TokenFile, filepath.Join(dir, transitTokenName))
		}
	}
	c, err := transit.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return c, nil
}
