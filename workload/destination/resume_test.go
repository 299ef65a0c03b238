package destination

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
)

// sessionRegistry keeps upload sessions as the OCI specification says, each of
// its answers naming a new address, in front of one that keeps blobs. take is
// called with the number of each PATCH of more than a MiB, from 1, and says
// after how many bytes that ends (negative: all are taken); say may falsify
// what status has, or answer itself.
type sessionRegistry struct {
	next http.Handler
	take func(n int) int64
	hang bool // a PATCH does not end, but stops being read
	lose int64
	say  func(w http.ResponseWriter, n int, have int64) (string, bool)
	put  func(w http.ResponseWriter, r *http.Request, n int, finish func(http.ResponseWriter)) bool

	mu       sync.Mutex
	sessions map[string]*bytes.Buffer
	state    int
	gone     chan struct{} // closed when the client has left the PATCH that hangs

	posts, patches, asked, puts int
	received                    atomic.Int64 // of large PATCHes
	total                       atomic.Int64 // what large PATCHes say to have, the last one's
	problems                    []string
}

func (s *sessionRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	base, id, ok := strings.Cut(r.URL.Path, "/blobs/uploads/")
	if !ok || r.Method == http.MethodPost && r.URL.RawQuery != "" {
		s.next.ServeHTTP(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveUp() // who asks for something else has
	if r.Method == http.MethodPost {
		s.posts++
		id = fmt.Sprintf("s%d", s.posts)
		s.sessions[id] = &bytes.Buffer{}
	} else if got := r.URL.Query().Get("state"); got != fmt.Sprint(s.state) {
		s.problems = append(s.problems, fmt.Sprintf("%s with state %s, expected %d", r.Method, got, s.state))
	}
	b := s.sessions[id]
	if b == nil {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	name := func() {
		s.state++
		w.Header().Set("Location", fmt.Sprintf("%s/blobs/uploads/%s?state=%d", base, id, s.state))
	}
	switch r.Method {
	case http.MethodPost:
		name()
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPatch:
		s.patch(w, r, b)
		name()
		w.WriteHeader(http.StatusAccepted)
	case http.MethodGet:
		s.asked++
		got := fmt.Sprintf("0-%d", max(0, b.Len()-1))
		if s.say != nil {
			said, done := s.say(w, s.asked, int64(b.Len()))
			if done {
				return
			}
			got = said
		}
		name()
		w.Header().Set("Range", got)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPut:
		s.close(w, r, base, b)
	}
}

func (s *sessionRegistry) giveUp() {
	if s.gone != nil {
		close(s.gone)
	}
	s.gone = nil
}

func (s *sessionRegistry) patch(w http.ResponseWriter, r *http.Request, b *bytes.Buffer) {
	var first, last int64
	if c := r.Header.Get("Content-Range"); c != "" {
		if _, err := fmt.Sscanf(c, "%d-%d", &first, &last); err != nil || last-first+1 != r.ContentLength {
			s.problems = append(s.problems, fmt.Sprintf("Content-Range %q for %d bytes", c, r.ContentLength))
		}
		if first != int64(b.Len()) && s.lose == 0 {
			s.problems = append(s.problems, fmt.Sprintf("Content-Range %q, session has %d bytes", c, b.Len()))
		}
	} else if b.Len() != 0 {
		s.problems = append(s.problems, "no Content-Range on a session that has bytes")
	}
	if r.ContentLength < 1<<20 {
		_, _ = io.Copy(b, r.Body)
		return
	}
	s.patches++
	s.total.Store(first + r.ContentLength)
	left := int64(-1)
	if s.take != nil {
		left = s.take(s.patches)
	}
	if left < 0 {
		n, _ := io.Copy(b, r.Body)
		s.received.Add(n)
		return
	}
	n, _ := io.CopyN(b, r.Body, left)
	s.received.Add(n)
	b.Truncate(b.Len() - int(s.lose))
	if s.hang {
		gone := make(chan struct{})
		s.gone = gone
		s.mu.Unlock()
		<-gone
		s.mu.Lock()
	}
	panic(http.ErrAbortHandler)
}

func (s *sessionRegistry) close(w http.ResponseWriter, r *http.Request, base string, b *bytes.Buffer) {
	d := digest.Digest(r.URL.Query().Get("digest"))
	finish := func(w http.ResponseWriter) {
		if digest.FromBytes(b.Bytes()) != d {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.next.ServeHTTP(w, httptest.NewRequest(http.MethodPost, base+"/blobs/uploads/?digest="+d.String(), bytes.NewReader(b.Bytes())))
	}
	if b.Len() > 1<<20 {
		s.puts++
		if s.put != nil && s.put(w, r, s.puts, finish) {
			return
		}
	}
	finish(w)
}

// TestResumedPush counts what is sent of a layer when its push is cut.
func TestResumedPush(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	cut := func(at ...int64) func(int) int64 {
		return func(n int) int64 {
			if n <= len(at) {
				return at[n-1]
			}
			return -1
		}
	}
	says := func(format string, by func(have int64) int64) func(http.ResponseWriter, int, int64) (string, bool) {
		return func(_ http.ResponseWriter, _ int, have int64) (string, bool) {
			return fmt.Sprintf(format, by(have)), false
		}
	}
	plain := func(code int) func(http.ResponseWriter, int, int64) (string, bool) {
		return func(w http.ResponseWriter, _ int, _ int64) (string, bool) { w.WriteHeader(code); return "", true }
	}
	type row struct {
		reg     *sessionRegistry
		extra   int64 // bytes sent more often than once, or whole
		posts   int   // sessions, one of them the configuration's
		atLeast time.Duration
		want    string
	}
	imagetest.AtOnce(t, map[string]row{
		"cut":                       {reg: &sessionRegistry{take: cut(6 * mib)}, posts: 2},
		"cut at once":               {reg: &sessionRegistry{take: cut(0)}, posts: 2},
		"cut often, but gets on":    {reg: &sessionRegistry{take: cut(2*mib, mib+5, mib, 3*mib-1)}, posts: 2},
		"stops taking":              {reg: &sessionRegistry{take: cut(6 * mib), hang: true}, posts: 2},
		"has nothing":               {reg: &sessionRegistry{take: cut(6 * mib), lose: 6 * mib}, extra: 6 * mib, posts: 2},
		"has a part":                {reg: &sessionRegistry{take: cut(6 * mib), lose: 1 * mib}, extra: mib, posts: 2},
		"status not found":          {reg: &sessionRegistry{take: cut(6 * mib), say: plain(404)}, extra: 6 * mib, posts: 3},
		"status not implemented":    {reg: &sessionRegistry{take: cut(6 * mib), say: plain(405)}, extra: 6 * mib, posts: 3},
		"status broken":             {reg: &sessionRegistry{take: cut(6 * mib), say: plain(500)}, extra: 6 * mib, posts: 3},
		"status without a Range":    {reg: &sessionRegistry{take: cut(6 * mib), say: plain(204)}, extra: 6 * mib, posts: 3},
		"status is nonsense":        {reg: &sessionRegistry{take: cut(6 * mib), say: says("%d-", func(h int64) int64 { return h })}, extra: 6 * mib, posts: 3},
		"claims more than was sent": {reg: &sessionRegistry{take: cut(6 * mib), say: says("0-%d", func(int64) int64 { return 1 << 40 })}, extra: 6 * mib, posts: 3},
		"claims what it has lost":   {reg: &sessionRegistry{take: cut(6 * mib), lose: 1, say: says("0-%d", func(h int64) int64 { return h })}, extra: whole, posts: 3},
		"busy at the end":           {reg: &sessionRegistry{put: busyOnce(503, "1")}, posts: 2, atLeast: time.Second},
		"last answer lost":          {reg: &sessionRegistry{put: lostOnce}, posts: 2},
		"has less than it said before": {reg: &sessionRegistry{take: cut(6*mib, 2*mib), say: func(_ http.ResponseWriter, n int, have int64) (string, bool) {
			return fmt.Sprintf("0-%d", have/int64(n)-1), false
		}}, extra: 8 * mib, posts: 3},
		"cut for ever": {reg: &sessionRegistry{take: func(int) int64 { return 100 }}, want: "pushing failed 3 times"},
		"gets on and loses it for ever": {reg: &sessionRegistry{take: func(int) int64 { return 2 * mib }, say: func(w http.ResponseWriter, n int, have int64) (string, bool) {
			if n%2 == 0 {
				w.WriteHeader(404)
			}
			return fmt.Sprintf("0-%d", have-1), n%2 == 0
		}}, want: "pushing failed 3 times"},
	}, func(t *testing.T, c row) {
		s := c.reg
		s.sessions = map[string]*bytes.Buffer{}
		sys := imagetest.System(t)
		host := imagetest.Registry(t, sys, func(next http.Handler) http.Handler {
			s.next = next
			return s
		})
		start := time.Now()
		p := registry.Patience{Retries: 2, Delay: time.Millisecond}
		if s.hang {
			p.Stall, p.Retries = time.Second, 20 // a slow machine stops now and then, too
		}
		info, err := push(registry.WithPatience(t.Context(), p), sys, "docker://"+host+"/ns/app:1", 9*mib+123)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.giveUp()
		for _, p := range s.problems {
			t.Error(p)
		}
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) || s.patches > 6 {
				t.Errorf("error %v after %d requests, expected %q", err, s.patches, c.want)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if !s.hang || s.patches == 2 { // else the machine stopped, too, and counts say nothing
			s.judge(t, c.extra, c.posts)
		}
		if took := time.Since(start); took < c.atLeast {
			t.Errorf("took %v, Retry-After asks for %v", took, c.atLeast)
		}
		s.mu.Unlock()
		defer s.mu.Lock()
		checkPushed(t, "http://"+host+"/v2/ns/app", info)
	})
}

const whole = -1

// judge compares what was sent, beyond once, and how many sessions it took.
func (s *sessionRegistry) judge(t *testing.T, extra int64, posts int) {
	t.Helper()
	if extra == whole {
		extra = s.total.Load()
	}
	if got, want := s.received.Load(), s.total.Load()+extra; got != want {
		t.Errorf("%d bytes sent, expected %d", got, want)
	}
	if s.posts != posts {
		t.Errorf("%d sessions, expected %d", s.posts, posts)
	}
}

func busyOnce(code int, after string) func(http.ResponseWriter, *http.Request, int, func(http.ResponseWriter)) bool {
	return func(w http.ResponseWriter, _ *http.Request, n int, _ func(http.ResponseWriter)) bool {
		if n == 1 {
			w.Header().Set("Retry-After", after)
			w.WriteHeader(code)
		}
		return n == 1
	}
}

func lostOnce(_ http.ResponseWriter, _ *http.Request, n int, finish func(http.ResponseWriter)) bool {
	if n == 1 {
		finish(httptest.NewRecorder())
		panic(http.ErrAbortHandler)
	}
	return false
}

// TestPushWithExpiredToken: a token that is refused when the layer has begun
// is replaced, and the layer not spoilt by being sent to two requests.
func TestPushWithExpiredToken(t *testing.T) {
	t.Parallel()
	var tokens, refused atomic.Int64
	var host string
	sys := imagetest.System(t)
	host = imagetest.Registry(t, sys, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				fmt.Fprintf(w, `{"token":"t%d"}`, tokens.Add(1))
				return
			}
			expired := r.Method == http.MethodPatch && refused.CompareAndSwap(0, 1)
			if expired {
				_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
			}
			if expired || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer t") {
				w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	info, err := push(registry.WithPatience(t.Context(), registry.Patience{Delay: time.Millisecond}), sys, "docker://"+host+"/ns/app:1", 9<<20)
	if err != nil {
		t.Fatal(err)
	}
	if refused.Load() == 0 || tokens.Load() < 2 {
		t.Errorf("%d tokens", tokens.Load())
	}
	checkPushed(t, "http://"+host+"/v2/ns/app", info)
}
