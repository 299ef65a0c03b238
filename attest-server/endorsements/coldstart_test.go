package endorsements

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// mockKDS is AMD's service in memory, on a synctest bubble's time. It counts
// requests as AMD does: over its limit it answers 429.
type mockKDS struct {
	veks  map[string][]byte // by hardware id, hex
	every time.Duration     // a document more each time; zero: no limit
	burst int               // at once, after a rest
	after int               // Retry-After of 429, seconds; zero: none
	fault func(since time.Duration, r *http.Request) (*http.Response, error)

	mu     sync.Mutex
	start  time.Time
	tokens float64
	last   time.Time
	asked  map[string]int // by path
	served map[string]int
}

func (m *mockKDS) RoundTrip(r *http.Request) (*http.Response, error) {
	if m.fault != nil {
		if resp, err := m.fault(time.Since(m.start), r); resp != nil || err != nil {
			m.count(r, m.asked)
			return resp, err
		}
	}
	time.Sleep(300 * time.Millisecond) // the way there and back
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked[r.URL.Path]++
	if m.every > 0 {
		m.tokens = min(m.tokens+float64(time.Since(m.last))/float64(m.every), float64(m.burst))
		m.last = time.Now()
		if m.tokens < 1 {
			h := http.Header{}
			if m.after > 0 {
				h.Set("Retry-After", strconv.Itoa(m.after))
			}
			return reply(r, http.StatusTooManyRequests, h, "Too Many Requests"), nil
		}
		m.tokens--
	}
	der, ok := m.veks[path.Base(r.URL.Path)]
	if !ok {
		return reply(r, http.StatusNotFound, nil, "Not Found"), nil
	}
	m.served[r.URL.Path]++
	return reply(r, http.StatusOK, nil, string(der)), nil
}

func (m *mockKDS) count(r *http.Request, in map[string]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in[r.URL.Path]++
}

func reply(r *http.Request, status int, h http.Header, body string) *http.Response {
	if h == nil {
		h = http.Header{}
	}
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status), Header: h, Body: io.NopCloser(strings.NewReader(body)), Request: r}
}

// site is chips, and what the vendor has for them.
type site struct {
	vendor *vendortest.Vendor
	veks   map[string][]byte
	keys   []snp.EndorsementKey
}

func newSite(t *testing.T, chips int) *site {
	s := &site{vendor: vendortest.NewVendor(t, false), veks: map[string][]byte{}}
	c := verifiertest.NewChip(t, false)
	for i := range chips {
		c.ID[0], c.ID[1] = byte(i), byte(i>>8)
		id := slices.Clone(c.ID[:])
		s.veks[hex.EncodeToString(id)] = s.vendor.VEK(t, c, verifiertest.VEKOptions{})
		s.keys = append(s.keys, snp.EndorsementKey{Product: "Milan", Signer: verifier.VCEK, ChipID: id, TCB: c.TCB})
	}
	return s
}

// fleet is a site's guests, and a server without any certificate.
type fleet struct {
	*site
	*mockKDS
	kds *KDS
}

// fleet is made within a synctest bubble.
func (s *site) fleet(t *testing.T) *fleet {
	f := &fleet{s, &mockKDS{veks: s.veks, asked: map[string]int{}, served: map[string]int{}, start: time.Now(), last: time.Now()}, nil}
	var err error
	f.kds, err = NewKDS(KDSOptions{Cache: cacheOf(t, s.vendor, ""), Fetcher: NewFetcher(FetchOptions{Client: &http.Client{Transport: f, Timeout: 10 * time.Second}})})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// guest asks as ccrun-init does (kbs.Client): after half a second, then twice as
// long up to a minute, by chance, or as late as the server says.
func (f *fleet) guest(ctx context.Context, key snp.EndorsementKey) error {
	for pause := 500 * time.Millisecond; ; pause = min(2*pause, time.Minute) {
		got, err := f.kds.Candidates(ctx, key)
		if err == nil && len(got) == 1 {
			return nil
		}
		var busy *verifier.Busy
		wait := pause / 2
		switch {
		case errors.As(err, &busy):
			wait = max(wait, busy.After)
		case errors.Is(err, verifier.ErrNoEndorsement):
			wait = max(wait, 30*time.Second) // what release says of it
		default:
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		time.Sleep(wait + rand.N(max(pause, wait)/2+1))
	}
}

// start has guests come at once, and returns when the first and the last was
// served.
func (f *fleet) startUp(t *testing.T, guests int, within time.Duration) (first, last time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	first = within
	for i := range guests {
		wg.Go(func() {
			if err := f.guest(ctx, f.keys[i%len(f.keys)]); err != nil {
				t.Errorf("guest %d is not served: %v", i, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			took := time.Since(f.start)
			first, last = min(first, took), max(last, took)
		})
	}
	wg.Wait()
	synctest.Wait()
	return first, last
}

// TestColdStart: a whole site comes up against a service with AMD's limits. All
// are served, the service gives each chip's certificate once, and is not
// bothered with more than it takes to learn its limit.
func TestColdStart(t *testing.T) {
	site := newSite(t, 60)
	for _, limit := range []struct {
		every  time.Duration
		burst  int
		after  int
		within time.Duration // of the last guest
		vain   int           // requests answered 429
	}{
		{0, 0, 0, 2 * time.Minute, 0},
		{10 * time.Second, 1, 0, 20 * time.Minute, 3},
		{time.Second, 20, 0, 15 * time.Minute, 3},
		{30 * time.Second, 10, 30, 40 * time.Minute, 4},
		{30 * time.Second, 1, 0, 60 * time.Minute, 25},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := site.fleet(t)
			f.every, f.burst, f.after, f.tokens = limit.every, limit.burst, limit.after, float64(limit.burst)
			first, last := f.startUp(t, 500, 2*time.Hour)
			requests := 0
			for p, n := range f.served {
				if n != 1 {
					t.Errorf("%s served %d times", p, n)
				}
				requests += f.asked[p]
			}
			if len(f.served) != 60 || requests > 60+limit.vain || last > limit.within {
				t.Errorf("limit %v: %d certificates by %d requests, last guest after %s, expected 60 by at most %d within %s",
					limit, len(f.served), requests, last, 60+limit.vain, limit.within)
			}
			t.Logf("limit %v: 500 guests on 60 chips: first %s, last %s, %d requests", limit, first.Round(time.Second), last.Round(time.Second), requests)
		})
	}
}

// TestOutages: whatever the service does for a while, guests are served soon
// after it does what it should. No guest is refused for good, and it is asked
// seldom meanwhile.
func TestOutages(t *testing.T) {
	answer := func(status int, body string) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) { return reply(r, status, nil, body), nil }
	}
	asleep := func(d time.Duration) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) {
			select {
			case <-time.After(d):
				return reply(r, http.StatusBadGateway, nil, ""), nil
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
	}
	faults := map[string]func(*http.Request) (*http.Response, error){
		"no uplink": func(*http.Request) (*http.Response, error) { return nil, errors.New("network is unreachable") },
		"429":       answer(429, ""), "404": answer(404, ""), "500": answer(500, "oops"), "redirect": answer(302, ""),
		"HTML": answer(200, "<html>sign in</html>"), "empty": answer(200, ""), "endless": answer(200, strings.Repeat("x", 1<<20)),
		"cut off": func(r *http.Request) (*http.Response, error) {
			resp := reply(r, 200, nil, "")
			resp.Body = io.NopCloser(io.MultiReader(bytes.NewReader([]byte{0x30, 0x82}), failing{}))
			return resp, nil
		},
		"slow": asleep(8 * time.Second), "never": asleep(time.Hour),
	}
	site := newSite(t, 3)
	for name, fault := range faults {
		for _, lasts := range []time.Duration{time.Second, 10 * time.Second, 300 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				f := site.fleet(t)
				f.mockKDS.fault = func(since time.Duration, r *http.Request) (*http.Response, error) {
					if since < lasts {
						return fault(r)
					}
					return nil, nil
				}
				first, last := f.startUp(t, 30, time.Hour)
				asked := 0
				for _, n := range f.asked {
					asked += n
				}
				// The pause grows to about the outage's length, a guest's own to a minute more.
				if bound := 2*lasts + missingFor + time.Minute; last > bound || asked > 3+int(lasts/(5*time.Second))+6 {
					t.Errorf("%s for %s: last guest after %s, expected within %s; %d requests", name, lasts, last, bound, asked)
				}
				t.Logf("%-10s for %4s: first guest after %4s, last after %4s, %2d requests", name, lasts, first.Round(time.Second), last.Round(time.Second), asked)
			})
		}
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// TestSlowAnswerIsKept: who does not wait that long gets it at the next try.
func TestSlowAnswerIsKept(t *testing.T) {
	site := newSite(t, 1)
	synctest.Test(t, func(t *testing.T) {
		f := site.fleet(t)
		f.mockKDS.fault = func(time.Duration, *http.Request) (*http.Response, error) {
			time.Sleep(8 * time.Second)
			return nil, nil
		}
		var busy *verifier.Busy
		if _, err := f.kds.Candidates(t.Context(), f.keys[0]); !errors.As(err, &busy) || time.Since(f.start) != vcekPatience {
			t.Errorf("after %s: %v", time.Since(f.start), err)
		}
		time.Sleep(4 * time.Second)
		if got, err := f.kds.Candidates(t.Context(), f.keys[0]); err != nil || len(got) != 1 || len(f.served) != 1 {
			t.Errorf("at the next try: %d, %v", len(got), err)
		}
	})
}
