// Package endorsements gathers what a verifier is fed with: certificates and CRLs
// of AMD, collateral of Intel. It alone asks the vendors and keeps files; what
// it keeps, a pinned root vouches for, and snp and tdx check it all the same.
package endorsements

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// SupplyOptions configures a Supply. The zero value has nothing and fetches
// nothing.
type SupplyOptions struct {
	Dir string // of the operator, never written to; empty: none
	// CacheDir keeps what was fetched. It must be given to fetch at all: a
	// restart must not ask the vendors for everything again.
	CacheDir   string
	KDSURL     string // empty: DefaultKDS
	PCSURL     string // empty: DefaultPCS
	RootCRLURL string // empty: as for PCSOptions
	Update     string // as for PCSOptions
	Client     *http.Client
	Now        func() time.Time // nil: time.Now
}

// Supply is a server's Endorsements: what its operator put into a directory
// and, if wanted, what it fetches itself. What is there is answered at once;
// CRLs and collateral are renewed by Run, in the background.
type Supply struct {
	o      SupplyOptions
	local  atomic.Pointer[Bundle]
	listed atomic.Pointer[Cache] // Dir again, for its dates
	online *Online               // nil: never fetches
	again  chan struct{}         // has Run renew now

	mu       sync.Mutex
	watchers []Watcher
}

// Watcher is told of CRLs, all there are each time: an snp.Verifier.
type Watcher interface {
	SetCRLs([]*x509.RevocationList) error
}

// OpenSupply reads both directories.
func OpenSupply(o SupplyOptions) (*Supply, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Supply{o: o, again: make(chan struct{}, 1)}
	if _, err := s.Reload(); err != nil {
		return nil, err
	}
	if o.CacheDir == "" {
		return s, nil
	}
	cache, err := OpenCache(CacheOptions{Dir: o.CacheDir})
	if err != nil {
		return nil, err
	}
	kds, err := NewKDS(KDSOptions{BaseURL: o.KDSURL, Cache: cache, Fetcher: NewFetcher(FetchOptions{Client: o.Client, Now: o.Now})})
	if err != nil {
		return nil, err
	}
	pcs, err := NewPCS(PCSOptions{BaseURL: o.PCSURL, RootCRLURL: o.RootCRLURL, Update: o.Update, Cache: cache, Now: o.Now,
		Fetcher: NewFetcher(FetchOptions{Client: o.Client, Now: o.Now})})
	if err != nil {
		return nil, err
	}
	s.online = &Online{Cache: cache, KDS: kds, PCS: pcs}
	return s, nil
}

// Reload reads both directories again. On error what was read before stays in
// use. undo puts that back later. The vendors are asked again for what they
// lacked, or did not answer.
func (s *Supply) Reload() (undo func() error, err error) {
	after := reading{local: &Bundle{}}
	if s.o.Dir != "" {
		if info, err := os.Stat(s.o.Dir); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("reading endorsements: %s is not a directory: %w", s.o.Dir, err)
		}
		if after.local, err = LoadBundle(os.DirFS(s.o.Dir)); err != nil {
			return nil, err
		}
	}
	if after.listed, err = OpenCache(CacheOptions{Dir: s.o.Dir}); err != nil {
		return nil, err
	}
	before := reading{s.local.Load(), s.listed.Load()}
	if err := after.keepsRevocations(before); err != nil {
		return nil, err
	}
	if s.online != nil {
		if err := s.online.Cache.Reload(); err != nil {
			return nil, err
		}
	}
	if err := s.use(after); err != nil {
		return nil, errors.Join(err, s.use(before))
	}
	if s.online != nil {
		s.online.KDS.o.Fetcher.Forget()
		s.online.PCS.o.Fetcher.Forget()
		select {
		case s.again <- struct{}{}:
		default: // Run has not heeded the last one yet
		}
	}
	return func() error { return s.use(before) }, nil
}

// reading is the operator's directory as it was read once.
type reading struct {
	local  *Bundle
	listed *Cache
}

// keepsRevocations refuses to do without a CRL by its absence alone: what it
// revoked would be good again.
func (r reading) keepsRevocations(before reading) error {
	if before.local == nil {
		return nil
	}
	there := map[string]bool{}
	for _, l := range r.local.CRLs() {
		there[string(l.RawIssuer)] = true
	}
	for _, l := range before.local.CRLs() {
		if !there[string(l.RawIssuer)] {
			return fmt.Errorf("reading endorsements: the CRL of %s is gone: put it back, or restart the server to do without", l.Issuer)
		}
	}
	return nil
}

func (s *Supply) use(r reading) error {
	s.local.Store(r.local)
	s.listed.Store(r.listed)
	return s.passCRLs()
}

// Watch gives w the CRLs there are, and those to come.
func (s *Supply) Watch(w Watcher) error {
	s.mu.Lock()
	s.watchers = append(s.watchers, w)
	s.mu.Unlock()
	return s.passCRLs()
}

// passCRLs gives every watcher all CRLs.
func (s *Supply) passCRLs() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, w := range s.watchers {
		errs = append(errs, w.SetCRLs(s.CRLs()))
	}
	return errors.Join(errs...)
}

// CRLs is every CRL at hand.
func (s *Supply) CRLs() []*x509.RevocationList {
	all := slices.Clone(s.local.Load().CRLs())
	if s.online != nil {
		all = append(all, s.online.Cache.CRLs()...)
	}
	return all
}

// Candidates implements snp.Endorsements. A VLEK comes from the operator alone.
// For a VCEK the vendor is asked where the operator's directory has none for
// this very key.
func (s *Supply) Candidates(ctx context.Context, k snp.EndorsementKey) ([][]byte, error) {
	local := s.local.Load()
	if s.online == nil || k.Signer == verifier.VLEK || len(local.fitting(k, snp.FitsKey)) > 0 {
		return local.Candidates(ctx, k)
	}
	fetched, err := s.online.KDS.Candidates(ctx, k)
	if errors.Is(err, verifier.ErrNoEndorsement) {
		return local.Candidates(ctx, k)
	}
	return fetched, err
}

// Collateral implements tdx.CollateralSource. The caller waits for the service
// only where there is no collateral at all.
func (s *Supply) Collateral(ctx context.Context, fmspc, ca string) ([]*tdx.Collateral, error) {
	local, err := s.local.Load().Collateral(ctx, fmspc, ca)
	if s.online == nil || err != nil && !errors.Is(err, verifier.ErrNoEndorsement) {
		return local, err
	}
	if len(local) > 0 && s.online.Cache.collateralFor(fmspc, ca) == nil {
		s.online.PCS.renewLater(ctx, fmspc, ca)
		return local, nil
	}
	fetched, err := s.online.PCS.Collateral(ctx, fmspc, ca)
	if err != nil && len(local) == 0 {
		return nil, err
	}
	return append(slices.Clip(local), fetched...), nil
}

// refreshEvery is how often Run asks the vendors for CRLs and collateral. Both
// are good for weeks, but a revocation should not wait. After a failure it asks
// soon, since where a CRL is required guests wait for it: an uplink that comes
// up after the server must not cost a quarter of an hour.
const (
	refreshEvery = 6 * time.Hour
	firstRetry   = firstPause + 5*time.Second
	longestRetry = 15 * time.Minute
)

// Run renews CRLs and collateral until ctx ends, and calls each with what
// Refresh said, nil if all went well. It returns at once if nothing is to be
// fetched.
func (s *Supply) Run(ctx context.Context, each func(error)) {
	retry := time.Duration(firstRetry)
	for s.online != nil {
		err := s.Refresh(ctx)
		if ctx.Err() != nil {
			return
		}
		each(err)
		wait := time.Duration(refreshEvery)
		if err != nil {
			wait, retry = retry, min(2*retry, longestRetry)
		} else {
			retry = firstRetry
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-s.again:
			t.Stop()
			retry = firstRetry
		case <-t.C:
		}
	}
}

// Refresh fetches the CRLs of every product line, and the collateral of every
// platform that has attested.
func (s *Supply) Refresh(ctx context.Context) error {
	if s.online == nil {
		return nil
	}
	var errs []error
	for _, l := range s.online.Cache.roots.lines {
		errs = append(errs, s.online.refreshCRL(ctx, l.Name))
	}
	for _, k := range s.online.Cache.Known() {
		if k.FMSPC != "" {
			_, err := s.online.PCS.Renew(ctx, k.FMSPC, k.CA)
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, s.passCRLs())...)
}

// List is everything at hand that a vendor's root vouches for.
func (s *Supply) List() []*Endorsement {
	all := s.listed.Load().List()
	if s.online != nil {
		all = append(all, s.online.Cache.List()...)
	}
	return all
}

// Expiring is what has expired at the given time, or will within the period;
// of each slot only the freshest counts.
func (s *Supply) Expiring(at time.Time, within time.Duration) []*Endorsement {
	best := map[string]*Endorsement{}
	for _, e := range s.List() {
		id := e.slot
		if id == "" {
			id = e.SHA256
		}
		if b := best[id]; b == nil || e.slot != "" && e.fresher(b) {
			best[id] = e
		}
	}
	var soon []*Endorsement
	for _, e := range best {
		if e.Expires.Before(at.Add(within)) {
			soon = append(soon, e)
		}
	}
	slices.SortFunc(soon, func(a, b *Endorsement) int { return a.Expires.Compare(b.Expires) })
	return soon
}
