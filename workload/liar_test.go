package workload

import (
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/source"
)

// liar is a lying registry with an image of the attacker's in the repository
// that a signed build goes to.
type liar struct {
	*imagetest.Liar
	repo string
	evil digest.Digest
	o    Options
	pub  string
}

func newLiar(t *testing.T) *liar {
	l := &liar{Liar: &imagetest.Liar{}, o: testOptions(t, &fakeServer{})}
	l.repo = l.Registry(t, l.o.System, false) + "/ns/app"
	keepSignatures(t, l.o.System)
	evil := imagetest.App(t)
	evil.Config.Config.Cmd = []string{"--evil"}
	evil.Upload(t, l.repo)
	l.evil = evil.WriteLayout(t, t.TempDir())
	l.o.Destination, l.o.Attach = "docker://"+l.repo+":v1", []string{AttachRecord, AttachProvenance}
	l.o.Sign, l.pub = signingKey(t, owner)
	return l
}

func (l *liar) verify(t *testing.T, name string) bool {
	t.Helper()
	v, err := VerifyImage(t.Context(), VerifyOptions{Image: name, KeyPath: l.pub, System: l.o.System})
	if err != nil {
		t.Logf("%s: %v", name, err)
		return false
	}
	t.Logf("%s: %+v", name, v.Checks)
	return v.Pass
}

// accepted is the digest of what a host takes whose policy.json asks for the
// owner's signature, as Podman would.
func (l *liar) accepted(t *testing.T, name string) string {
	t.Helper()
	sys := *l.o.System
	sys.SignaturePolicyPath = filepath.Join(t.TempDir(), "policy.json")
	imagetest.WriteFile(t, sys.SignaturePolicyPath, []byte(`{"default":[{"type":"sigstoreSigned","keyPath":"`+l.pub+`"}]}`))
	src, err := source.Open(t.Context(), "docker://"+l.repo+name, source.Options{System: &sys})
	if err != nil {
		return ""
	}
	defer src.Close()
	return src.Digest.String()
}

// signed says for which digests the repository has signatures.
func (l *liar) signed() (list []string) {
	for _, path := range l.Asked("PUT", ".sig") {
		name := path[strings.LastIndexByte(path, '/')+1:]
		list = append(list, strings.Replace(strings.TrimSuffix(name, ".sig"), "-", ":", 1))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// TestSignedIsWhatWasBuilt: to whatever a registry answers, the owner's key
// signs the image that was built and nothing else.
func TestSignedIsWhatWasBuilt(t *testing.T) {
	t.Parallel()
	for name, lies := range map[string]func(*liar) []imagetest.Lie{
		"another image under the tag": func(l *liar) []imagetest.Lie {
			return []imagetest.Lie{imagetest.Swapped("v1", l.evil.String())}
		},
		"another digest for the manifest": func(l *liar) []imagetest.Lie {
			return []imagetest.Lie{imagetest.OtherDigest("PUT", "/manifests/v1", l.evil), imagetest.OtherDigest("HEAD", "/manifests/", l.evil), imagetest.OtherDigest("GET", "/manifests/", l.evil)}
		},
		"both": func(l *liar) []imagetest.Lie {
			return []imagetest.Lie{imagetest.Swapped("v1", l.evil.String()), imagetest.OtherDigest("PUT", "/manifests/v1", l.evil)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t)
			l.Tell(lies(l)...)
			res, err := Build(t.Context(), l.o)
			if err == nil && !l.verify(t, "docker://"+l.repo+"@"+res.Digest) {
				t.Error("what was built is not signed")
			}
			for _, d := range l.signed() {
				if err != nil || d != res.Digest {
					t.Errorf("a signature of %s (%v)", d, err)
				}
			}
			for _, name := range []string{":v1", "@" + l.evil.String()} {
				if got := l.accepted(t, name); got == l.evil.String() {
					t.Errorf("a host that asks for the owner's signature accepts %s, which is the attacker's image", name)
				}
			}
		})
	}
}

// TestSignatureReadBack: a signature that the registry took and does not have
// is no signature. It is looked for where it went.
func TestSignatureReadBack(t *testing.T) {
	t.Parallel()
	l := newLiar(t)
	imagetest.WriteFile(t, l.o.System.SystemRegistriesConfPath, []byte("[[registry]]\nprefix = \""+l.repo+"\"\nlocation = \"127.0.0.1:1/elsewhere\"\n"))
	if _, err := Build(t.Context(), l.o); err != nil {
		t.Errorf("with a registries.conf that sends readers elsewhere: %v", err)
	}
	other := l.o.Registrar.(*fakeServer).the(t).Registration.Image
	for name, lie := range map[string]func(signatures string) imagetest.Lie{
		"withheld": func(string) imagetest.Lie {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, ".sig") {
					w.WriteHeader(http.StatusNotFound)
					return true
				}
				return false
			}
		},
		"of another image": func(signatures string) imagetest.Lie {
			return func(w http.ResponseWriter, r *http.Request, honest http.Handler) bool {
				if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, ".sig") {
					return false
				}
				r.URL.Path = r.URL.Path[:strings.LastIndexByte(r.URL.Path, '/')+1] + signatures
				honest.ServeHTTP(w, r)
				return true
			}
		},
	} {
		l := *l
		l.o.Registrar, l.o.Destination = &fakeServer{}, "docker://"+l.repo+":v2"
		l.Forget()
		l.Tell(lie(strings.Replace(other, ":", "-", 1) + ".sig"))
		ctx := registry.WithPatience(t.Context(), registry.Patience{Retries: 1, Delay: time.Millisecond})
		if _, err := Build(ctx, l.o); err == nil || !strings.Contains(err.Error(), "reading the signature back") {
			t.Errorf("signature %s: %v", name, err)
		}
	}
	l.Forget()
	var written, answered atomic.Int64
	l.Tell(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, ".sig") {
			return false
		}
		if r.Method == http.MethodPut {
			written.Add(1)
		}
		late := r.Method == http.MethodGet && written.Load() > 0 && answered.Add(1) < 3
		if late {
			w.WriteHeader(http.StatusNotFound)
		}
		return late
	})
	l.o.Registrar = &fakeServer{}
	if _, err := Build(registry.WithPatience(t.Context(), registry.Patience{Delay: time.Millisecond}), l.o); err != nil || answered.Load() < 3 {
		t.Errorf("signature that is there after a while: %v", err)
	}
}

// TestRefusedBeforeAnything: what cannot be signed or named is known before a
// byte is sent, and to the server before anything is staged.
func TestRefusedBeforeAnything(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*liar){
		"no place for a signature": func(l *liar) { l.o.System.RegistriesDirPath = t.TempDir() },
		"a digest as destination":  func(l *liar) { l.o.Destination = "docker://" + l.repo + "@" + l.evil.String() },
		"a tag and a digest": func(l *liar) {
			l.o.Destination = "docker://" + l.repo + ":v1@" + l.evil.String()
		},
		"a digest in local storage": func(l *liar) { l.o.Destination = "containers-storage:localhost/app@" + l.evil.String() },
	} {
		l := newLiar(t)
		change(l)
		puts := len(l.Asked("PUT", "")) + len(l.Asked("POST", ""))
		_, err := Build(t.Context(), l.o)
		if !errors.Is(err, hint.ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
		if n := len(l.Asked("PUT", "")) + len(l.Asked("POST", "")); n != puts || len(l.o.Registrar.(*fakeServer).reqs) != 0 {
			t.Errorf("%s: %d requests that write", name, n-puts)
		}
	}
	_, server, ro := built(t)
	ro.Destination = "docker://127.0.0.1:1/app@" + digest.FromString("x").String()
	if _, err := Rotate(t.Context(), ro); !errors.Is(err, hint.ErrUsage) || server.staged.Len() != 0 {
		t.Errorf("rotated into a digest: %v", err)
	}
}

// TestNameIsReadBack: a name that is another image's right after the push is
// said. What the result says of the image is from memory.
func TestNameIsReadBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lie  func(*liar) imagetest.Lie
		want string
	}{
		"honest":  {func(l *liar) imagetest.Lie { return imagetest.Swapped("other", "x") }, ""},
		"swapped": {func(l *liar) imagetest.Lie { return imagetest.Swapped("v1", l.evil.String()) }, "pushed was"},
		"gone":    {func(l *liar) imagetest.Lie { return imagetest.Swapped("v1", "nothing") }, "reading its name back"},
	} {
		l := newLiar(t)
		l.Tell(c.lie(l))
		l.o.Sign = nil
		warned := ""
		l.o.Warn = func(s string) { warned += s + "\n" }
		res, err := Build(t.Context(), l.o)
		if err != nil || res.Digest == l.evil.String() || res.Digest != l.o.Registrar.(*fakeServer).the(t).Registration.Image {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		if (c.want == "") != (warned == "") || !strings.Contains(warned, c.want) {
			t.Errorf("%s: warned of %q, expected %q", name, warned, c.want)
		}
	}
}
