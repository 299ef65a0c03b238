package imagetest

import (
	"path/filepath"
	"testing"

	"github.com/containers/image/v5/signature/sigstore"
)

// SigstoreKey makes a key pair as `skopeo generate-sigstore-key` does, and
// returns its files.
func SigstoreKey(t testing.TB, passphrase string) (private, public string) {
	t.Helper()
	pair, err := sigstore.GenerateKeyPair([]byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	private, public = filepath.Join(dir, "key"), filepath.Join(dir, "pub")
	WriteFile(t, private, pair.PrivateKey)
	WriteFile(t, public, pair.PublicKey)
	return private, public
}
