package referrers

import (
	"testing"

	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
)

func TestLoadSigningKey(t *testing.T) {
	private, public := imagetest.SigstoreKey(t, "pass")
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
