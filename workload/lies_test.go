package workload

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
)

// url is where the repository's manifests and blobs are.
func (l *liar) url() string { return "http://" + strings.Replace(l.repo, "/", "/v2/", 1) }

// altered is b with its last bit flipped.
func altered(b []byte) []byte {
	c := bytes.Clone(b)
	c[len(c)-1] ^= 1
	return c
}

// served is the lie that a blob or manifest of an image has other content.
func (l *liar) served(t *testing.T, kind string, d digest.Digest, change func([]byte) []byte) imagetest.Lie {
	t.Helper()
	mediaType, b := imagetest.Fetch(t, l.url()+"/"+kind+"/"+d.String())
	return imagetest.Served("/"+kind+"/"+d.String(), mediaType, change(b))
}

// parts are the digests in an image's manifest.
func (l *liar) parts(t *testing.T, image string) (config, layer digest.Digest) {
	t.Helper()
	_, b := imagetest.Fetch(t, l.url()+"/manifests/"+image)
	var m imgspec.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m.Config.Digest, m.Layers[0].Digest
}

// lies are all that a registry can tell of the image with this digest, which
// has the name v1, to those who read it.
func (l *liar) lies(t *testing.T, image string) map[string][]imagetest.Lie {
	config, layer := l.parts(t, image)
	evil := "/manifests/" + l.evil.String()
	evilType, evilManifest := imagetest.Fetch(t, l.url()+evil)
	_, genuine := imagetest.Fetch(t, l.url()+"/manifests/"+image)
	list := imagetest.JSON(t, imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex,
		Manifests: []imgspec.Descriptor{{MediaType: imgspec.MediaTypeImageManifest, Digest: l.evil, Size: int64(len(evilManifest)),
			Platform: &imgspec.Platform{OS: "linux", Architecture: "amd64"}}}})
	both := func(mediaType string, b []byte) []imagetest.Lie {
		return []imagetest.Lie{imagetest.Served("/manifests/v1", mediaType, b), imagetest.Served("/manifests/"+image, mediaType, b)}
	}
	return map[string][]imagetest.Lie{
		"altered configuration": {l.served(t, "blobs", config, func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"created":"2`), []byte(`"created":"1`), 1)
		})},
		"altered layer": {l.served(t, "blobs", layer, altered)},
		"cut layer":     {l.served(t, "blobs", layer, func(b []byte) []byte { return b[:len(b)-1] })},
		"another layer": {l.served(t, "blobs", layer, func([]byte) []byte {
			_, b := imagetest.Fetch(t, l.url()+"/blobs/"+config.String())
			return b
		})},
		"another manifest":        both(evilType, evilManifest),
		"a forged manifest":       both(evilType, imagetest.Forged(t, evilManifest, genuine)),
		"a list of another image": both(imgspec.MediaTypeImageIndex, list),
		"a forged list":           both(imgspec.MediaTypeImageIndex, imagetest.Forged(t, list, genuine)),
	}
}

// TestLiesToReaders: whatever a registry answers, nobody takes it for the image
// that the owner has signed: neither verify-image, nor a build from it, whose
// policy asks for the signature, nor a rotation or conversion, which open it.
func TestLiesToReaders(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.o.Passphrase = secret.New([]byte(strings.Repeat("0123456789abcdef", 4)))
	res, err := Build(t.Context(), l.o)
	if err != nil {
		t.Fatal(err)
	}
	req := l.o.Registrar.(*fakeServer).the(t)
	for _, name := range []string{":v1", "@" + res.Digest} {
		if !l.verify(t, "docker://"+l.repo+name) || l.accepted(t, name) != res.Digest {
			t.Fatal("the honest image is refused")
		}
	}
	for lie, told := range l.lies(t, res.Digest) {
		t.Run(lie, func(t *testing.T) {
			l.Forget()
			l.Tell(told...)
			defer l.Forget()
			for _, name := range []string{":v1", "@" + res.Digest} {
				full := "docker://" + l.repo + name
				if l.verify(t, full) {
					t.Errorf("verify-image accepts %s", name)
				}
				if got := l.accepted(t, name); got != "" && got != res.Digest {
					t.Errorf("policy.json accepts %s as %s", name, got)
				}
				o := testOptions(t, &fakeServer{})
				o.System, o.Source, o.SourcePassphrase, o.SizeBytes = l.o.System, full, secret.New(bytes.Clone(req.DiskKey)), 0
				if _, err := Build(t.Context(), o); err == nil || len(o.Registrar.(*fakeServer).reqs) != 0 {
					t.Errorf("%s is converted, or registered: %v", name, err)
				}
				server := &rotatingServer{reg: req.Registration, current: secret.New(bytes.Clone(req.DiskKey))}
				_, err := Rotate(t.Context(), RotateOptions{Environment: o.Environment, WorkloadID: req.Registration.WorkloadID,
					Source: full, Destination: "oci:" + t.TempDir() + ":app", Server: server})
				if err == nil || server.staged.Len() != 0 {
					t.Errorf("%s is rotated, or about to be: %v", name, err)
				}
			}
		})
	}
}

// TestLiesToWriters: to whatever a registry answers while it takes an image, it
// is refused, or what is registered, signed, committed and told is the digest of
// what was made, and never one that the registry has named.
func TestLiesToWriters(t *testing.T) {
	t.Parallel()
	has := func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if r.Method != http.MethodHead || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		w.Header().Set("Content-Length", "5") // "it is here already"
		return true
	}
	for name, lie := range map[string]func(*liar) imagetest.Lie{
		"upload's digest":   func(l *liar) imagetest.Lie { return imagetest.OtherDigest("PUT", "/blobs/uploads/", l.evil) },
		"manifest's digest": func(l *liar) imagetest.Lie { return imagetest.OtherDigest("PUT", "/manifests/v2", l.evil) },
		"HEAD of a blob":    func(l *liar) imagetest.Lie { return imagetest.OtherDigest("HEAD", "/blobs/", l.evil) },
		"HEAD of the name":  func(l *liar) imagetest.Lie { return imagetest.OtherDigest("HEAD", "/manifests/", l.evil) },
		"all blobs there":   func(*liar) imagetest.Lie { return has },
		"name":              func(l *liar) imagetest.Lie { return imagetest.Swapped("v2", l.evil.String()) },
		"referrers":         func(l *liar) imagetest.Lie { return imagetest.OtherDigest("PUT", "/manifests/sha256:", l.evil) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t)
			l.o.Destination = "docker://" + l.repo + ":v2"
			_, _, ro := built(t)
			ro.System, ro.Destination = l.o.System, l.o.Destination
			l.Tell(lie(l))
			ctx := registry.WithPatience(t.Context(), registry.Patience{Retries: -1})
			res, err := Build(ctx, l.o)
			server := l.o.Registrar.(*fakeServer)
			if err == nil {
				l.wantOnly(t, res.Digest, server.the(t).Registration.Image)
			} else if slices.Contains(l.signed(), l.evil.String()) {
				t.Errorf("signed the attacker's image, then %v", err)
			}
			rotated, err := Rotate(ctx, ro)
			if to := ro.Server.(*rotatingServer); err == nil {
				l.wantOnly(t, rotated.Digest, to.image)
			} else if to.image != "" {
				t.Errorf("committed %s after %v", to.image, err)
			}
		})
	}
}

func (l *liar) wantOnly(t *testing.T, told, kept string) {
	t.Helper()
	if told != kept || told == l.evil.String() || slices.Contains(l.signed(), l.evil.String()) {
		t.Errorf("told %s, kept %s, signed %v; the registry named %s", told, kept, l.signed(), l.evil)
	}
}

// TestLiesAboutReferrers: documents of one image are none of another's.
func TestLiesAboutReferrers(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	l.o.Attach = []string{AttachRecord, AttachProvenance, AttachSBOM}
	first, err := Build(t.Context(), l.o)
	if err != nil {
		t.Fatal(err)
	}
	l.o.Destination, l.o.Registrar = "docker://"+l.repo+":v3", &fakeServer{}
	if _, err := Build(t.Context(), l.o); err != nil {
		t.Fatal(err)
	}
	fallback := func(image string) string { return "/manifests/" + strings.Replace(image, ":", "-", 1) }
	second := l.o.Registrar.(*fakeServer).the(t).Registration.Image
	kind, others := imagetest.Fetch(t, l.url()+fallback(second))
	_, own := imagetest.Fetch(t, l.url()+fallback(first.Digest))
	var index imgspec.Index
	if err := json.Unmarshal(own, &index); err != nil {
		t.Fatal(err)
	}
	_, document := l.parts(t, index.Manifests[0].Digest.String())
	o := VerifyOptions{Image: "docker://" + l.repo + ":v1", KeyPath: l.pub, System: l.o.System, Require: l.o.Attach}
	for name, lie := range map[string]imagetest.Lie{
		"none":              nil,
		"another image's":   imagetest.Served(fallback(first.Digest), kind, others),
		"withheld":          imagetest.Served(fallback(first.Digest), kind, imagetest.JSON(t, imgspec.Index{Versioned: index.Versioned, MediaType: kind})),
		"an altered entry":  l.served(t, "manifests", index.Manifests[0].Digest, altered),
		"an altered record": l.served(t, "blobs", document, altered),
	} {
		l.Forget()
		if lie != nil {
			l.Tell(lie)
		}
		v, err := VerifyImage(t.Context(), o)
		if pass := err == nil && v.Pass; pass != (lie == nil) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

// TestRotatedIsWhatWasBuilt: an image with the workload's disk in it that is not
// the one registered is said to be.
func TestRotatedIsWhatWasBuilt(t *testing.T) {
	t.Parallel()
	_, server, ro := built(t)
	warned := ""
	ro.Warn = func(s string) { warned += s }
	ro.Destination += "2"
	for known, want := range map[string]string{
		"": "", server.reg.Image: "", digest.FromString("another").String(): "the workload's image is " + digest.FromString("another").String(),
	} {
		warned = ""
		ro.Server = &rotatingServer{reg: server.reg, current: server.current, image: known}
		if _, err := Rotate(t.Context(), ro); err != nil {
			t.Fatal(err)
		}
		if (want == "") != (warned == "") || !strings.Contains(warned, want) {
			t.Errorf("known %s: warned of %q", known, warned)
		}
	}
}

// TestNameMovesMeanwhile: the signature is asked for the image that was looked
// at, not for what its name has become since.
func TestNameMovesMeanwhile(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	if _, err := Build(t.Context(), l.o); err != nil {
		t.Fatal(err)
	}
	v := &verification{
		VerifyOptions: VerifyOptions{Image: "docker://" + l.repo + ":v1", KeyPath: l.pub, System: l.o.System},
		out:           &ImageVerification{Digest: "sha256:" + strings.Repeat("0", 64)},
	}
	if err := v.basis(); err != nil {
		t.Fatal(err)
	}
	if err := v.signature(t.Context()); err == nil || !strings.Contains(err.Error(), "has moved") {
		t.Errorf("another image's signature: %v", err)
	}
}
