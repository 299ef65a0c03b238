package attestserver

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/sample/sampletest"
	"github.com/ccrun/ccrun/attest-server/servertest"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
)

var rigTime = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

// simulated makes one platform for all tests.
var simulated = sync.OnceValues(func() (string, error) {
	parent, err := os.MkdirTemp("", "ccrun-attestserver-test-")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(parent, "platform")
	return dir, sampletest.Create(dir, rigTime.Add(-time.Hour))
})

func TestMain(m *testing.M) {
	code := servertest.Run(m)
	if dir, _ := simulated(); dir != "" {
		os.RemoveAll(filepath.Dir(dir))
	}
	os.Exit(code)
}

func platform(t testing.TB) (*sample.Attester, []byte, string) {
	t.Helper()
	dir, err := simulated()
	if err != nil {
		t.Fatal(err)
	}
	a, err := sample.OpenAttester(dir)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, sample.ChipDir, "vcek*.pem"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no VCEK in %s: %v", dir, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if block, _ := pem.Decode(b); block != nil && block.Type == "CERTIFICATE" {
			return a, block.Bytes, filepath.Join(dir, sample.RootsDir)
		}
	}
	t.Fatal("no certificate among ", files)
	return nil, nil, ""
}

// withSNP lets the server trust the simulated platform for TEE snp, as
// --test-root does, and hold its VCEK, which legacy clients do not send.
func withSNP(t testing.TB, dialects ...session.Dialect) func(*Config) {
	_, vcek, roots := platform(t)
	bundle := &endorsements.Bundle{}
	if _, err := x509.ParseCertificate(vcek); err != nil || bundle.Add(vcek) != 1 {
		t.Fatalf("bundling the VCEK: %v", err)
	}
	v, err := sample.NewSNPVerifier(roots, snp.Options{Endorsements: bundle})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) {
		c.Dialects = dialects
		c.Verifiers[kbs.SNP] = v
	}
}

func (r *rig) registerSNP(id string, kind kbs.RegistrationType, digest byte) {
	r.t.Helper()
	req := request(id, digest)
	req.Registration.ReferenceValues.TEE = kbs.SNP
	if req.Registration.Type = kind; kind != kbs.TypeNative {
		req.Registration.IdentityDigest, req.Registration.FooterDigest = kbs.Digest{}, kbs.Digest{}
	}
	if _, err := r.admin.Register(r.t.Context(), req); err != nil {
		r.t.Fatal(err)
	}
}

// coco is a CoCo guest that was launched with digest.
func (r *rig) coco(kind string, digest byte) *cocoClient {
	r.t.Helper()
	c := newCocoClient(r.t, r.http.URL, r.http.Client(), kind)
	a, vcek, _ := platform(r.t)
	c.evidence = func(rd [64]byte) any {
		l, err := sample.NewLaunch(kbs.LaunchDigest{digest})
		if err != nil {
			r.t.Fatal(err)
		}
		ev, err := a.Sign(rd, l)
		if err != nil {
			r.t.Fatal(err)
		}
		return cocoSNPEvidence(ev, []map[string]any{{"cert_type": "VCEK", "data": ints(vcek)}})
	}
	return c
}
