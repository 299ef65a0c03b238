package imagetest

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/containers/image/v5/types"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
)

// Liar is a registry that takes what it is sent, and answers what it likes.
type Liar struct {
	mu    sync.Mutex
	lies  []Lie
	asked []string
}

// Lie answers a request in honest's place, or says that it leaves it alone.
type Lie func(w http.ResponseWriter, r *http.Request, honest http.Handler) bool

// Front is what Registry takes.
func (l *Liar) Front(honest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.asked = append(l.asked, r.Method+" "+r.URL.Path)
		lies := l.lies
		l.mu.Unlock()
		for _, lie := range lies {
			if lie(w, r, honest) {
				return
			}
		}
		honest.ServeHTTP(w, r)
	})
}

// Tell adds lies to those told already.
func (l *Liar) Tell(lies ...Lie) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lies = append(l.lies, lies...)
}

// Forget ends all lies.
func (l *Liar) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lies = nil
}

// Asked lists the requests so far with this method whose path holds part.
func (l *Liar) Asked(method, part string) (list []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.asked {
		if m, path, _ := strings.Cut(a, " "); m == method && strings.Contains(path, part) {
			list = append(list, path)
		}
	}
	return list
}

// Registry is the liar's, with or without the referrers API.
func (l *Liar) Registry(t testing.TB, sys *types.SystemContext, api bool) string {
	t.Helper()
	s := httptest.NewServer(l.Front(registry.New(registry.Logger(discard()), registry.WithReferrersSupport(api))))
	t.Cleanup(s.Close)
	sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	return strings.TrimPrefix(s.URL, "http://")
}

// Swapped answers who asks for a manifest by one name with that of another,
// from the moment on that something was pushed to the first.
func Swapped(name, other string) Lie {
	var mu sync.Mutex
	pushed := false
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, "/manifests/"+name) {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		pushed = pushed || r.Method == http.MethodPut
		if !pushed || r.Method == http.MethodPut {
			return false
		}
		swapped := r.Clone(r.Context())
		swapped.URL.Path = strings.TrimSuffix(r.URL.Path, name) + other
		honest.ServeHTTP(w, swapped)
		return true
	}
}

// Served answers who asks for a path with this ending with b, under the digest
// that was asked for, if one was.
func Served(ending, mediaType string, b []byte) Lie {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, ending) || r.Method != http.MethodGet && r.Method != http.MethodHead {
			return false
		}
		if d := digest.Digest(r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]); d.Validate() == nil {
			w.Header().Set("Docker-Content-Digest", d.String())
		}
		w.Header().Set("Content-Type", mediaType)
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(b)
		}
		return true
	}
}

// OtherDigest does what is asked, and names another digest for it.
func OtherDigest(method, part string, d digest.Digest) Lie {
	return func(w http.ResponseWriter, r *http.Request, honest http.Handler) bool {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return false
		}
		honest.ServeHTTP(&otherDigest{w, d}, r)
		return true
	}
}

type otherDigest struct {
	http.ResponseWriter
	d digest.Digest
}

func (o *otherDigest) WriteHeader(code int) {
	o.Header().Set("Docker-Content-Digest", o.d.String())
	o.ResponseWriter.WriteHeader(code)
}

// Forged is manifest as its readers take it, with the digest that the library
// gives to genuine: it strips the signatures of Docker's first format, and what
// is left is what the signatures' header says was there (CVE-2026-111361).
func Forged(t testing.TB, manifest, genuine []byte) []byte {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	protected := fmt.Sprintf(`{"formatLength":0,"formatTail":%q}`, encode(genuine))
	members, ok := strings.CutPrefix(string(manifest), `{"schemaVersion":2,"mediaType":"`+mediaTypeOf(manifest)+`",`)
	if !ok {
		t.Fatalf("manifest %s begins otherwise than expected", manifest)
	}
	return []byte(`{"schemaVersion":1,"signatures":[{"header":{"alg":"ES256"},"signature":"AAAA","protected":"` + encode([]byte(protected)) + `"}],` + members)
}

func mediaTypeOf(manifest []byte) string {
	_, after, _ := strings.Cut(string(manifest), `"mediaType":"`)
	kind, _, _ := strings.Cut(after, `"`)
	return kind
}
