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
// it: one request at a time for each, answers that something does not exist
// are remembered for an hour, and after an error the whole service is left
// alone for 10 seconds, then twice as long each time up to ten minutes, or as
// long as its Retry-After says. AMD's KDS throttles those who are not. New
// documents are asked for at a bounded rate: what is asked for comes from
// Evidence that nobody has authenticated yet.
type Fetcher struct {
	client *http.Client
	now    func() time.Time
	flight singleflight.Group
	rate   *rate.Limiter

	mu      sync.Mutex
	missing map[string]time.Time // until when
	pause   time.Duration
	resume  time.Time
}

// NewFetcher makes a Fetcher.
func NewFetcher(o FetchOptions) *Fetcher {
	f := &Fetcher{client: o.Client, now: o.Now, missing: map[string]time.Time{}, rate: rate.NewLimiter(rate.Every(fetchEvery), fetchBurst)}
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
	missingFor   = time.Hour
	maxMissing   = 4096
	fetchEvery   = 2 * time.Second
	fetchBurst   = 60
)

// document is an answer with status 200.
type document struct {
	body   []byte
	header http.Header
}

// get is the document at url, of at most limit bytes. ErrNoEndorsement if the
// service says that there is none.
func (f *Fetcher) get(ctx context.Context, url string, limit int64) (*document, error) {
	ch := f.flight.DoChan(url, func() (any, error) {
		if err := f.allowed(url); err != nil {
			return nil, err
		}
		// One caller that gives up must not fail the others: the client's own
		// timeout bounds the request.
		return f.request(context.WithoutCancel(ctx), url, limit)
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

func (f *Fetcher) allowed(url string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if until, ok := f.missing[url]; ok && now.Before(until) {
		return verifier.ErrNoEndorsement
	}
	if now.Before(f.resume) {
		return fmt.Errorf("%w: trying again in %s", verifier.ErrBusy, f.resume.Sub(now).Round(time.Second))
	}
	if !f.rate.AllowN(now, 1) {
		return fmt.Errorf("%w: asked for more than %d documents at once", verifier.ErrBusy, fetchBurst)
	}
	return nil
}

func (f *Fetcher) request(ctx context.Context, url string, limit int64) (*document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		f.backOff(0)
		return nil, fmt.Errorf("%w: %w", verifier.ErrBusy, err)
	}
	defer resp.Body.Close()
	body, err := bounded.Read(resp.Body, "the answer", limit)
	switch {
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusBadRequest:
		f.remember(url)
		return nil, verifier.ErrNoEndorsement
	case resp.StatusCode != http.StatusOK || err != nil && !errors.Is(err, bounded.ErrTooLarge):
		seconds, convErr := strconv.Atoi(resp.Header.Get("Retry-After"))
		if convErr != nil {
			seconds = 0
		}
		f.backOff(time.Duration(seconds) * time.Second)
		return nil, fmt.Errorf("%w: GET %s: %s", verifier.ErrBusy, url, resp.Status)
	case err != nil:
		return nil, fmt.Errorf("GET %s: %w", url, err)
	}
	f.mu.Lock()
	f.pause, f.resume = 0, time.Time{}
	f.mu.Unlock()
	return &document{body: body, header: resp.Header}, nil
}

// backOff leaves the service alone, at least as long as it asked for within
// reason.
func (f *Fetcher) backOff(asked time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pause = min(max(firstPause, 2*f.pause), longestPause)
	f.resume = f.now().Add(min(max(f.pause, asked), longestPause))
}

func (f *Fetcher) remember(url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.missing) >= maxMissing {
		clear(f.missing)
	}
	f.missing[url] = f.now().Add(missingFor)
}
