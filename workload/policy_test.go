package workload

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/openpgp" //lint:ignore SA1019 what simple signing uses

	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/referrers"
)

// gpgKey is a key and the file of its public half.
func gpgKey(t testing.TB) (*openpgp.Entity, string) {
	t.Helper()
	e, err := openpgp.NewEntity("builder", "", "builder@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range e.Identities {
		id.SelfSignature.PreferredHash = []uint8{8} // SHA-256; the default is long gone
	}
	if err := e.SerializePrivate(io.Discard, nil); err != nil { // this signs its name
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.Serialize(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pub.gpg")
	imagetest.WriteFile(t, path, b.Bytes())
	return e, path
}

// simpleSign is what `skopeo standalone-sign` makes.
func simpleSign(t testing.TB, e *openpgp.Entity, name string, manifest digest.Digest) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := openpgp.Sign(&out, e, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(w, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":"atomic container signature"},"optional":{"creator":"test","timestamp":1700000000}}`,
		name, manifest)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// signSource signs an image in a registry the sigstore way.
func signSource(t testing.TB, sys *types.SystemContext, name string, key *referrers.SigningKey) {
	t.Helper()
	ref, err := alltransports.ParseImageName(name)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{signature.NewPRInsecureAcceptAnything()}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Destroy() }()
	keyFile, passphrase := key.Sigstore()
	if _, err := copy.Image(t.Context(), pc, ref, ref, &copy.Options{SourceCtx: sys, DestinationCtx: sys, PreserveDigests: true,
		SignBySigstorePrivateKeyFile: keyFile, SignSigstorePrivateKeyPassphrase: passphrase}); err != nil {
		t.Fatal(err)
	}
}

// TestSourcePolicy: policy.json decides which sources are built, by either
// kind of signature, and a source it refuses leaves nothing.
func TestSourcePolicy(t *testing.T) {
	t.Parallel()
	sigKey, sigPub := signingKey(t, owner)
	otherSig, otherSigPub := signingKey(t, stranger)
	gpg, gpgPub := gpgKey(t)
	otherGPG, otherGPGPub := gpgKey(t)
	requirement := map[string]string{
		"sigstore": `{"type":"sigstoreSigned","keyPath":%q,"signedIdentity":{"type":"matchRepository"}}`,
		"simple":   `{"type":"signedBy","keyType":"GPGKeys","keyPath":%q}`,
	}
	for name, c := range map[string]struct {
		kind, pub string
		sigstore  *referrers.SigningKey
		gpg       *openpgp.Entity
		signedAs  string // for simple signing, instead of the image's name
		other     bool   // signature of another manifest
		want      string // in the error
	}{
		"sigstore":                    {kind: "sigstore", pub: sigPub, sigstore: sigKey},
		"sigstore, unsigned":          {kind: "sigstore", pub: sigPub, want: "signature policy refuses"},
		"sigstore, other key":         {kind: "sigstore", pub: sigPub, sigstore: otherSig, want: "signature policy refuses"},
		"sigstore, other key wanted":  {kind: "sigstore", pub: otherSigPub, sigstore: sigKey, want: "signature policy refuses"},
		"sigstore, only GPG signed":   {kind: "sigstore", pub: sigPub, gpg: gpg, want: "signature policy refuses"},
		"simple":                      {kind: "simple", pub: gpgPub, gpg: gpg},
		"simple, unsigned":            {kind: "simple", pub: gpgPub, want: "signature policy refuses"},
		"simple, other key":           {kind: "simple", pub: gpgPub, gpg: otherGPG, want: "signature policy refuses"},
		"simple, other key wanted":    {kind: "simple", pub: otherGPGPub, gpg: gpg, want: "signature policy refuses"},
		"simple, of another image":    {kind: "simple", pub: gpgPub, gpg: gpg, signedAs: "registry.example/other:1", want: "signature policy refuses"},
		"simple, of another manifest": {kind: "simple", pub: gpgPub, gpg: gpg, other: true, want: "signature policy refuses"},
		"simple, only sigstore":       {kind: "simple", pub: gpgPub, sigstore: sigKey, want: "signature policy refuses"},
	} {
		t.Run(name, func(t *testing.T) {
			server := &fakeServer{}
			o := testOptions(t, server)
			repo := imagetest.Registry(t, o.System, nil) + "/app"
			lookaside := t.TempDir()
			o.System.RegistriesDirPath = t.TempDir()
			imagetest.WriteFile(t, filepath.Join(o.System.RegistriesDirPath, "default.yaml"),
				fmt.Appendf(nil, "default-docker:\n  use-sigstore-attachments: true\n  lookaside: file://%s\n", lookaside))
			m := imagetest.App(t)
			m.Upload(t, repo)
			manifest := m.WriteLayout(t, t.TempDir())
			o.Source = "docker://" + repo + ":1"
			if c.sigstore != nil {
				signSource(t, o.System, o.Source, c.sigstore)
			}
			if c.gpg != nil {
				as, of := repo+":1", manifest
				if c.signedAs != "" {
					as = c.signedAs
				}
				if c.other {
					of = digest.FromString("other")
				}
				imagetest.WriteFile(t, filepath.Join(lookaside, "app@sha256="+manifest.Encoded(), "signature-1"), simpleSign(t, c.gpg, as, of))
			}
			imagetest.WriteFile(t, o.System.SignaturePolicyPath, fmt.Appendf(nil,
				`{"default":[{"type":"reject"}],"transports":{"docker":{%q:[`+requirement[c.kind]+`]}}}`, repo, c.pub))
			_, err := Build(t.Context(), o)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, expected %q in it", err, c.want)
			}
			nothingLeft(t, o, server)
		})
	}
}

// TestBasePolicy: an allowed base that the policy refuses allows nothing.
func TestBasePolicy(t *testing.T) {
	t.Parallel()
	o := testOptions(t, &fakeServer{})
	repo := imagetest.Registry(t, o.System, nil) + "/base"
	imagetest.App(t).Upload(t, repo)
	o.AllowedBases = []string{"docker://" + repo + ":1"}
	imagetest.WriteFile(t, o.System.SignaturePolicyPath, []byte(`{"default":[{"type":"reject"}],"transports":{"oci":{"":[{"type":"insecureAcceptAnything"}]}}}`))
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "reading allowed base") {
		t.Errorf("unsigned base: %v", err)
	}
}
