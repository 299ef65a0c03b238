package verifier

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
)

// DefaultPCS is Intel's Provisioning Certification Service.
const DefaultPCS = "https://api.trustedservices.intel.com"

// defaultRootCRL is where Intel publishes its root's CRL.
const defaultRootCRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

// PCSOptions configures a PCS.
type PCSOptions struct {
	BaseURL    string           // empty: DefaultPCS; a PCCS answers the same paths
	RootCRLURL string           // empty: Intel's
	Local      CollateralSource // what it has is used as well; may be nil
	Fetcher    *Fetcher         // nil: one of its own
	Now        func() time.Time // nil: time.Now
}

// PCS is a CollateralSource over Intel's Provisioning Certification Service,
// version 4, or a PCCS. Collateral is fetched once and again an hour before
// it expires; while the service does not answer, the old is used to its end.
type PCS struct {
	o  PCSOptions
	mu sync.Mutex
	m  map[string]fetchedCollateral
}

type fetchedCollateral struct {
	c    *Collateral
	next time.Time // when to fetch again
}

// NewPCS makes a PCS.
func NewPCS(o PCSOptions) *PCS {
	if o.BaseURL == "" {
		o.BaseURL = DefaultPCS
	}
	if o.RootCRLURL == "" {
		o.RootCRLURL = defaultRootCRL
	}
	if o.Fetcher == nil {
		o.Fetcher = NewFetcher(FetchOptions{})
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.BaseURL = strings.TrimRight(o.BaseURL, "/")
	return &PCS{o: o, m: map[string]fetchedCollateral{}}
}

// Collateral implements CollateralSource.
func (p *PCS) Collateral(ctx context.Context, fmspc, ca string) ([]*Collateral, error) {
	var found []*Collateral
	if p.o.Local != nil {
		local, err := p.o.Local.Collateral(ctx, fmspc, ca)
		if err != nil && !errors.Is(err, ErrNoEndorsement) {
			return nil, err
		}
		found = append(found, local...)
	}
	c, err := p.current(ctx, strings.ToLower(fmspc), ca)
	if err == nil {
		return append(found, c), nil
	}
	if len(found) == 0 {
		return nil, err
	}
	return found, nil
}

func (p *PCS) current(ctx context.Context, fmspc, ca string) (*Collateral, error) {
	id := fmspc + " " + ca
	p.mu.Lock()
	have := p.m[id]
	p.mu.Unlock()
	if have.c != nil && p.o.Now().Before(have.next) {
		return have.c, nil
	}
	c, err := p.Fetch(ctx, fmspc, ca)
	if err != nil {
		if have.c != nil {
			return have.c, nil
		}
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.m) >= maxVerifiedCollateral {
		clear(p.m)
	}
	p.m[id] = fetchedCollateral{c: c, next: c.refetch(p.o.Now())}
	return c, nil
}

// refetch is an hour before the first part expires, and not within the next
// minute, however broken the dates are.
func (c *Collateral) refetch(now time.Time) time.Time {
	next := now.Add(24 * time.Hour)
	for _, s := range []string{c.TCBInfo, c.QEIdentity} {
		var v struct {
			NextUpdate time.Time `json:"nextUpdate"`
		}
		if json.Unmarshal([]byte(s), &v) == nil && v.NextUpdate.Before(next.Add(time.Hour)) {
			next = v.NextUpdate.Add(-time.Hour)
		}
	}
	if soon := now.Add(time.Minute); next.Before(soon) {
		return soon
	}
	return next
}

// Fetch gets the collateral for a platform anew. ca is "platform" or
// "processor", after the CA that issued the PCK. Nothing is checked.
func (p *PCS) Fetch(ctx context.Context, fmspc, ca string) (*Collateral, error) {
	if b, err := hex.DecodeString(fmspc); err != nil || len(b) != 6 {
		return nil, fmt.Errorf("FMSPC %q is not 12 hex digits", fmspc)
	}
	c := &Collateral{}
	for _, s := range []struct {
		url string
		put func(d *document) error
	}{
		{p.o.RootCRLURL, func(d *document) error { c.RootCACRL = hexCRL(d.body); return nil }},
		{p.o.BaseURL + "/sgx/certification/v4/pckcrl?encoding=der&ca=" + url.QueryEscape(ca), func(d *document) (err error) {
			c.PCKCRL = hexCRL(d.body)
			c.PCKCRLIssuerChain, err = chainHeader(d.header, "Sgx-Pck-Crl-Issuer-Chain")
			return err
		}},
		{p.o.BaseURL + "/tdx/certification/v4/tcb?fmspc=" + fmspc, func(d *document) (err error) {
			c.TCBInfo, c.TCBInfoSignature, c.TCBInfoIssuerChain, err = signedMember(d, "tcbInfo", "Tcb-Info-Issuer-Chain")
			return err
		}},
		{p.o.BaseURL + "/tdx/certification/v4/qe/identity", func(d *document) (err error) {
			c.QEIdentity, c.QEIdentitySignature, c.QEIdentityIssuerChain, err = signedMember(d, "enclaveIdentity", "Sgx-Enclave-Identity-Issuer-Chain")
			return err
		}},
	} {
		d, err := p.o.Fetcher.get(ctx, s.url, maxCollateralSize)
		if err == nil {
			err = s.put(d)
		}
		if err != nil {
			return nil, fmt.Errorf("fetching collateral from %s: %w", s.url, err)
		}
	}
	return c, nil
}

// hexCRL is a CRL in hex; a PCCS may serve it in hex already.
func hexCRL(b []byte) string {
	if len(b) > 0 && b[0] == 0x30 {
		if _, err := hex.DecodeString(string(b)); err != nil {
			return hex.EncodeToString(b)
		}
	}
	return strings.TrimSpace(string(b))
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
