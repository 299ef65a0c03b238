package endorsements

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// DefaultPCS is Intel's Provisioning Certification Service.
const DefaultPCS = "https://api.trustedservices.intel.com"

// defaultRootCRL is where Intel publishes its root's CRL.
const defaultRootCRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

// What Intel publishes on the day of a TCB recovery, and what it publishes when
// the firmware had time to reach machines.
const (
	UpdateEarly    = "early"
	UpdateStandard = "standard"
)

// PCSOptions configures a PCS.
type PCSOptions struct {
	BaseURL    string           // empty: DefaultPCS; a PCCS answers the same paths
	RootCRLURL string           // empty: Intel's, or the PCCS's own
	Update     string           // of TCB info and QE identity: UpdateEarly; empty: Intel's default, standard
	Cache      *Cache           // keeps what was fetched; nil: one in memory
	Fetcher    *Fetcher         // nil: one of its own
	Now        func() time.Time // nil: time.Now
}

// PCS is a CollateralSource over Intel's Provisioning Certification Service,
// version 4, or a PCCS, behind a cache. What is cached is answered at once, and
// renewed in the background from an hour before it expires; a caller waits only
// for what has expired. While the service does not answer, what there is is
// used to its end.
type PCS struct {
	o  PCSOptions
	mu sync.Mutex
	// renewing is when each collateral may be fetched again.
	renewing map[string]time.Time
	wait     sync.WaitGroup
}

// NewPCS makes a PCS.
func NewPCS(o PCSOptions) (*PCS, error) {
	if err := completeService("PCS", &o.BaseURL, DefaultPCS, &o.Cache, &o.Fetcher); err != nil {
		return nil, err
	}
	if o.Update != "" && o.Update != UpdateEarly && o.Update != UpdateStandard {
		return nil, fmt.Errorf("update %q, expected %s or %s", o.Update, UpdateEarly, UpdateStandard)
	}
	if o.RootCRLURL == "" {
		o.RootCRLURL = defaultRootCRL
		if o.BaseURL != DefaultPCS {
			o.RootCRLURL = o.BaseURL + "/sgx/certification/v4/rootcacrl"
		}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &PCS{o: o, renewing: map[string]time.Time{}}, nil
}

// Collateral implements tdx.CollateralSource.
func (p *PCS) Collateral(ctx context.Context, fmspc, ca string) ([]*tdx.Collateral, error) {
	have := p.o.Cache.collateralFor(fmspc, ca)
	if have == nil {
		c, err := p.Renew(ctx, fmspc, ca)
		return []*tdx.Collateral{c}, err
	}
	now := p.o.Now()
	switch {
	case now.After(have.Expires) && p.mayRenew(fmspc+" "+ca, now):
		if c, err := p.Renew(ctx, fmspc, ca); err == nil {
			return []*tdx.Collateral{c}, nil
		}
	case now.After(have.Expires.Add(-renewBefore)):
		p.renewLater(ctx, fmspc, ca)
	}
	return []*tdx.Collateral{have.collateral.Raw}, nil
}

// renewLater renews in the background.
func (p *PCS) renewLater(ctx context.Context, fmspc, ca string) {
	if !p.mayRenew(fmspc+" "+ca, p.o.Now()) {
		return
	}
	p.wait.Go(func() {
		// An error is no loss yet: the next caller tries again.
		_, _ = p.Renew(context.WithoutCancel(ctx), fmspc, ca)
	})
}

// renewBefore is how long before their end Endorsements are renewed.
const renewBefore = time.Hour

// maxRenewing bounds the platforms remembered.
const maxRenewing = 256

// mayRenew lets one caller a minute through.
func (p *PCS) mayRenew(id string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Before(p.renewing[id]) {
		return false
	}
	if len(p.renewing) >= maxRenewing {
		clear(p.renewing)
	}
	p.renewing[id] = now.Add(time.Minute)
	return true
}

// Renew fetches the collateral for a platform into the cache, whatever is
// there, and returns it once its signatures are checked.
func (p *PCS) Renew(ctx context.Context, fmspc, ca string) (*tdx.Collateral, error) {
	raw, err := p.Fetch(ctx, strings.ToLower(fmspc), ca)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	e, _, err := p.o.Cache.Add(b)
	if err != nil && !errors.Is(err, ErrCacheFull) {
		return nil, fmt.Errorf("collateral from %s: %w", p.o.BaseURL, err)
	}
	if e.fmspc != strings.ToLower(fmspc) || e.ca != ca {
		return nil, fmt.Errorf("collateral from %s is for %s, %s CA, not %s, %s CA", p.o.BaseURL, e.fmspc, e.ca, fmspc, ca)
	}
	if have := p.o.Cache.collateralFor(fmspc, ca); have != nil {
		e = have
	}
	return e.collateral.Raw, nil
}

// update is the query for Options.Update, if any.
func (p *PCS) update(begin string) string {
	if p.o.Update == "" {
		return ""
	}
	return begin + "update=" + p.o.Update
}

// Fetch asks the service for the collateral of a platform. ca is "platform" or
// "processor", after the CA that issued the PCK. Nothing is checked.
func (p *PCS) Fetch(ctx context.Context, fmspc, ca string) (*tdx.Collateral, error) {
	if b, err := hex.DecodeString(fmspc); err != nil || len(b) != 6 {
		return nil, fmt.Errorf("FMSPC %q is not 12 hex digits", fmspc)
	}
	c := &tdx.Collateral{}
	for _, s := range []struct {
		kind kind
		url  string
		put  func(d *document) error
	}{
		{kindRootCRL, p.o.RootCRLURL, func(d *document) error { c.RootCACRL = hexCRL(d.body); return nil }},
		{kindPCKCRL, p.o.BaseURL + "/sgx/certification/v4/pckcrl?encoding=der&ca=" + url.QueryEscape(ca), func(d *document) (err error) {
			c.PCKCRL = hexCRL(d.body)
			c.PCKCRLIssuerChain, err = chainHeader(d.header, "Sgx-Pck-Crl-Issuer-Chain")
			return err
		}},
		{kindTCB, p.o.BaseURL + "/tdx/certification/v4/tcb?fmspc=" + fmspc + p.update("&"), func(d *document) (err error) {
			c.TCBInfo, c.TCBInfoSignature, c.TCBInfoIssuerChain, err = signedMember(d, "tcbInfo", "Tcb-Info-Issuer-Chain")
			return err
		}},
		{kindQE, p.o.BaseURL + "/tdx/certification/v4/qe/identity" + p.update("?"), func(d *document) (err error) {
			c.QEIdentity, c.QEIdentitySignature, c.QEIdentityIssuerChain, err = signedMember(d, "enclaveIdentity", "Sgx-Enclave-Identity-Issuer-Chain")
			return err
		}},
	} {
		d, err := p.o.Fetcher.get(ctx, s.kind, s.url, tdx.MaxCollateralBytes)
		if err == nil {
			err = s.put(d)
		}
		if err != nil {
			return nil, fmt.Errorf("fetching collateral from %s: %w", s.url, err)
		}
	}
	return c, nil
}

// signedMember takes the exact bytes that Intel signed out of an answer.
func signedMember(d *document, name, header string) (body, signature, chain string, err error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(d.body, &m); err != nil {
		return "", "", "", err
	}
	if err := json.Unmarshal(m["signature"], &signature); err != nil {
		return "", "", "", fmt.Errorf("reading the signature: %w", err)
	}
	chain, err = chainHeader(d.header, header)
	return string(m[name]), signature, chain, err
}

// chainHeader is a percent-encoded PEM chain. Its plus signs are base64, not
// spaces.
func chainHeader(h http.Header, name string) (string, error) {
	v := h.Get(name)
	if v == "" {
		return "", fmt.Errorf("answer without header %s", name)
	}
	return url.PathUnescape(v)
}
