package referrers

import (
	"path/filepath"
	"testing"

	"github.com/containers/image/v5/signature/sigstore"

	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
)

func TestLoadSigningKey(t *testing.T) {
	pair, err := sigstore.GenerateKeyPair([]byte("pass"))
	if err != nil {
		t.Fatal(err)
	}
	private, public := filepath.Join(t.TempDir(), "key"), filepath.Join(t.TempDir(), "pub")
	imagetest.WriteFile(t, private, pair.PrivateKey)
	imagetest.WriteFile(t, public, pair.PublicKey)
	if _, err := LoadSigningKey(private, secret.New([]byte("pass"))); err != nil {
		t.Error(err)
	}
	if _, err := LoadSigningKey(private, secret.New([]byte("wrong"))); err == nil {
		t.Error("key opens with a wrong passphrase")
	}
	if _, err := LoadSigningKey(public, secret.New([]byte("pass"))); err == nil {
		t.Error("public key taken for a private one")
	}
	if _, err := ReadPublicKey(private); err == nil {
		t.Error("private key taken for a public one")
	}
}
