package endorsements

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/bounded"
)

// FetchOptions configures a Fetcher. The zero value is ready for use.
type FetchOptions struct {
	Client *http.Client     // nil: one with a timeout of 10 s
	Now    func() time.Time // nil: time.Now
}

// Fetcher gets small documents from a vendor's service and is gentle about
// it: one request at a time for each kind of document, answers that a machine's
// document does not exist are remembered for two minutes, and after an error documents of that
// kind are left alone for 10 seconds, then twice as long each time up to ten
// minutes, or as long as its Retry-After says. AMD's KDS throttles those who are
// not: one that did is asked no faster than it wanted for the ten minutes after.
// That is for each kind on its own: a CRL that cannot be had says little of
// VCEKs, which guests wait for. New documents are asked for at a bounded rate:
// what is asked for comes from Evidence that nobody has authenticated yet.
type Fetcher struct {
	client *http.Client
	now    func() time.Time
	flight singleflight.Group
	rate   *rate.Limiter

	mu      sync.Mutex
	missing map[string]time.Time // until when
	pauses  map[kind]pause
	turns   map[kind]*turn
}

// turn is one request at a time: many that are refused together would each
// lengthen the pause.
type turn struct {
	taken   chan struct{}
	waiting int
}

// kind is a kind of document, in errors and logs by this name.
type kind string

const (
	kindVCEK    kind = "VCEK"
	kindChain   kind = "certificate chain"
	kindCRL     kind = "CRL"
	kindRootCRL kind = "root CRL"
	kindPCKCRL  kind = "PCK CRL"
	kindTCB     kind = "TCB info"
	kindQE      kind = "QE identity"
)

// ofOneMachine says whether a document is about one machine or platform. One
// that all need is asked for again each time: it must be somewhere.
func (k kind) ofOneMachine() bool { return k == kindVCEK || k == kindTCB }

// pause is how long a kind of document is left alone.
type pause struct {
	length time.Duration // after the last error; zero once it is over
	resume time.Time
	gap    time.Duration // between requests, until heeded has passed
	heeded time.Time
}

// NewFetcher makes a Fetcher.
func NewFetcher(o FetchOptions) *Fetcher {
	f := &Fetcher{client: o.Client, now: o.Now, missing: map[string]time.Time{}, pauses: map[kind]pause{}, turns: map[kind]*turn{}, rate: rate.NewLimiter(rate.Every(fetchEvery), fetchBurst)}
	if f.client == nil {
		f.client = &http.Client{Timeout: 10 * time.Second}
	}
	if f.now == nil {
		f.now = time.Now
	}
	return f
}

// NewClient makes a client for a vendor's service. Roots, if given, are the only
// ones trusted, as for a mirror within the operator's network.
func NewClient(timeout time.Duration, roots *x509.CertPool) *http.Client {
	client := &http.Client{Timeout: timeout}
	if roots != nil {
		client.Transport = &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	}
	return client
}

const (
	firstPause   = 10 * time.Second
	longestPause = 10 * time.Minute
	missingFor   = 2 * time.Minute
	maxMissing   = 4096
	maxSeconds   = int(longestPause / time.Second)
	fetchEvery   = 2 * time.Second
	fetchBurst   = 60
	heedFor      = 10 * time.Minute // how long a 429 is heeded
	maxWaiting   = 64               // for their turn
)

// document is an answer with status 200.
type document struct {
	body   []byte
	header http.Header
}

// get is the document at url, of at most limit bytes. ErrNoEndorsement if the
// service says that there is none.
func (f *Fetcher) get(ctx context.Context, k kind, url string, limit int64) (*document, error) {
	ch := f.flight.DoChan(url, func() (any, error) {
		if err := f.awaited(k, url); err != nil {
			return nil, err
		}
		end, err := f.takeTurn(k)
		if err != nil {
			return nil, err
		}
		defer end()
		if err := f.allowed(k, url); err != nil {
			return nil, err
		}
		// One caller that gives up must not fail the others: the client's own
		// timeout bounds the request.
		return f.request(context.WithoutCancel(ctx), k, url, limit)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-ch:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*document), nil
	}
}

// awaited says whether there is no need to ask, or no time for it yet.
func (f *Fetcher) awaited(k kind, url string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inVain(k, url)
}

// inVain is awaited while f.mu is held.
func (f *Fetcher) inVain(k kind, url string) error {
	now := f.now()
	if until, ok := f.missing[url]; ok && now.Before(until) {
		return verifier.ErrNoEndorsement
	}
	if left := f.pauses[k].resume.Sub(now); left > 0 {
		return &verifier.Busy{After: left, Err: fmt.Errorf("asking for a %s again in %s", k, left.Round(time.Second))}
	}
	return nil
}

// allowed is awaited for one who asks now, and counts it.
func (f *Fetcher) allowed(k kind, url string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.inVain(k, url); err != nil {
		return err
	}
	if !f.rate.AllowN(f.now(), 1) {
		return &verifier.Busy{After: fetchEvery, Err: fmt.Errorf("asked for more than %d documents at once", fetchBurst)}
	}
	return nil
}

// takeTurn waits until nobody else asks for a document of this kind.
func (f *Fetcher) takeTurn(k kind) (end func(), err error) {
	f.mu.Lock()
	t := f.turns[k]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		f.turns[k] = t
	}
	if t.waiting >= maxWaiting {
		f.mu.Unlock()
		return nil, &verifier.Busy{After: fetchEvery, Err: fmt.Errorf("%d others wait for a %s", maxWaiting, k)}
	}
	t.waiting++
	f.mu.Unlock()
	t.taken <- struct{}{} // each before it ends with its request's time limit
	f.mu.Lock()
	t.waiting--
	f.mu.Unlock()
	return func() { <-t.taken }, nil
}

func (f *Fetcher) request(ctx context.Context, k kind, url string, limit int64) (*document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, &verifier.Busy{After: f.backOff(k, 0), Err: err}
	}
	defer resp.Body.Close()
	body, err := bounded.Read(resp.Body, "the answer", limit)
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusBadRequest:
		f.answered(k)
		if k.ofOneMachine() {
			f.remember(url)
		}
		return nil, fmt.Errorf("%w: GET %s: %s", verifier.ErrNoEndorsement, url, resp.Status)
	case resp.StatusCode != http.StatusOK || err != nil && !errors.Is(err, bounded.ErrTooLarge):
		seconds, convErr := strconv.Atoi(resp.Header.Get("Retry-After"))
		if convErr != nil {
			seconds = 0
		}
		wanted := time.Duration(min(seconds, maxSeconds)) * time.Second
		if resp.StatusCode == http.StatusTooManyRequests {
			f.slowDown(k, wanted)
		}
		after := f.backOff(k, wanted)
		return nil, &verifier.Busy{After: after, Err: fmt.Errorf("GET %s: %s", url, resp.Status)}
	case err != nil: // larger than any such document
		return nil, &verifier.Busy{After: f.backOff(k, 0), Err: fmt.Errorf("GET %s: %w", url, err)}
	}
	f.answered(k)
	return &document{body: body, header: resp.Header}, nil
}

// backOff leaves a kind of document alone, at least as long as the service asked
// for within reason, and says how long.
func (f *Fetcher) backOff(k kind, wanted time.Duration) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	length := min(max(firstPause, 2*f.pauses[k].length), longestPause)
	wait := min(max(length, wanted), longestPause)
	p := f.pauses[k]
	p.length, p.resume = length, f.now().Add(wait)
	f.pauses[k] = p
	return wait
}

// slowDown keeps a gap between requests from now on: a service that counts them
// would refuse every other one if it were asked at once after each answer. A
// gap that was kept, and did not do, is doubled.
func (f *Fetcher) slowDown(k kind, wanted time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pauses[k]
	if p.length == 0 {
		p.gap *= 2
	}
	p.gap, p.heeded = min(max(p.gap, wanted, firstPause), longestPause), f.now().Add(heedFor)
	f.pauses[k] = p
}

// answered ends the pauses after errors.
func (f *Fetcher) answered(k kind) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, now := f.pauses[k], f.now()
	if !now.Before(p.heeded) {
		delete(f.pauses, k)
		return
	}
	p.length, p.resume = 0, now.Add(p.gap)
	f.pauses[k] = p
}

// Forget has everything asked for again that was missing or left alone: the
// operator says that something has changed.
func (f *Fetcher) Forget() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.missing)
	clear(f.pauses)
}

func (f *Fetcher) remember(url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.missing) >= maxMissing {
		clear(f.missing)
	}
	f.missing[url] = f.now().Add(missingFor)
}
