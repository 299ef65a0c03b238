package endorsements

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// DefaultKDS is AMD's Key Distribution Service.
const DefaultKDS = "https://kdsintf.amd.com"

// KDSOptions configures a KDS.
type KDSOptions struct {
	BaseURL string   // empty: DefaultKDS; a mirror answers the same paths
	Cache   *Cache   // asked first, keeps what was fetched; nil: one in memory
	Fetcher *Fetcher // nil: one of its own
}

// KDS is Endorsements from AMD's Key Distribution Service or a mirror, behind
// a cache: once a chip's certificate is there, nothing is fetched for it again
// until its TCB changes. It gives no VLEK: those come from the cloud provider,
// with the Evidence or in a bundle.
type KDS struct {
	o      KDSOptions
	flight singleflight.Group
}

// NewKDS makes a KDS.
func NewKDS(o KDSOptions) (*KDS, error) {
	if err := completeService("KDS", &o.BaseURL, DefaultKDS, &o.Cache, &o.Fetcher); err != nil {
		return nil, err
	}
	return &KDS{o: o}, nil
}

// completeService checks a vendor service's address and puts in the place of
// what is empty: its usual address, a cache in memory and a fetcher of its own.
func completeService(name string, base *string, usual string, cache **Cache, fetcher **Fetcher) (err error) {
	*base = strings.TrimRight(cmp.Or(*base, usual), "/")
	u, err := url.Parse(*base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("address of the %s: %q is not a URL such as %s", name, *base, usual)
	}
	if *fetcher == nil {
		*fetcher = NewFetcher(FetchOptions{})
	}
	if *cache == nil {
		*cache, err = OpenCache(CacheOptions{})
	}
	return err
}

// Candidates implements snp.Endorsements. While the service does not answer, the
// error is ErrBusy. A full cache keeps nothing more, but is no error.
func (k *KDS) Candidates(ctx context.Context, key snp.EndorsementKey) ([][]byte, error) {
	if key.Signer == verifier.VLEK {
		return k.o.Cache.Candidates(ctx, key)
	}
	if kept := k.o.Cache.view().fitting(key, snp.FitsKey); len(kept) > 0 {
		return kept, nil
	}
	at := k.vcekURL(key)
	// Who waits holds a place among the appraisals. What comes later is kept
	// all the same, for the next try.
	ch := k.flight.DoChan(at, func() (any, error) { return k.fetchVCEK(context.WithoutCancel(ctx), at, key) })
	patience := time.NewTimer(vcekPatience)
	defer patience.Stop()
	select {
	case r := <-ch:
		got, _ := r.Val.([][]byte)
		return got, r.Err
	case <-patience.C:
		return nil, &verifier.Busy{After: fetchEvery, Err: fmt.Errorf("no VCEK within %s", vcekPatience)}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// vcekPatience is how long a guest is kept waiting for its chip's certificate:
// less than its own time limit, so that it gets an answer.
const vcekPatience = 5 * time.Second

// fetchVCEK has the certificate at an address checked and kept.
func (k *KDS) fetchVCEK(ctx context.Context, at string, key snp.EndorsementKey) ([][]byte, error) {
	if kept := k.o.Cache.view().fitting(key, snp.FitsKey); len(kept) > 0 {
		return kept, nil // it came just now
	}
	doc, err := k.o.Fetcher.get(ctx, kindVCEK, at, chain.MaxCertificateBytes)
	if err != nil {
		return nil, err
	}
	if err := k.keep(doc.body, key); err != nil {
		// Some proxy answers in its place, or it is broken: no word on the chip.
		return nil, &verifier.Busy{After: k.o.Fetcher.backOff(kindVCEK, 0), Err: fmt.Errorf("the VCEK from %s: %w", at, err)}
	}
	return [][]byte{doc.body}, nil
}

// keep caches a certificate for key. What is not what was asked for must not
// stay there.
func (k *KDS) keep(der []byte, key snp.EndorsementKey) error {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	if f, err := snp.ParseFacts(c); err != nil || f.Fit(key) != snp.FitsKey {
		return errors.New("it is for another chip or TCB")
	}
	if _, _, err := k.o.Cache.Add(der); err != nil && !errors.Is(err, ErrCacheFull) {
		return err
	}
	return nil
}

// vcekURL is the certificate's address (57230, section 4.1). The TCB of chips
// with ids of 8 bytes, from Turin on, has a FMC component.
func (k *KDS) vcekURL(key snp.EndorsementKey) string {
	t, fmc := key.TCB, ""
	if len(key.ChipID) == 8 {
		fmc = fmt.Sprintf("fmcSPL=%02d&", t.FMC)
	}
	return fmt.Sprintf("%s/vcek/v1/%s/%x?%sblSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d",
		k.o.BaseURL, url.PathEscape(key.Product), []byte(key.ChipID), fmc, t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// Chain fetches a product line's ASK (ASVK if signer is VLEK) and ARK into the
// cache. They are pinned: it is other tools that need them there.
func (k *KDS) Chain(ctx context.Context, product, signer string) ([]Outcome, error) {
	return k.fetchInto(ctx, kindChain, "/"+strings.ToLower(signer)+"/v1/"+url.PathEscape(product)+"/cert_chain")
}

// CRL fetches the current CRL of a product line's ARK into the cache.
func (k *KDS) CRL(ctx context.Context, product string) ([]Outcome, error) {
	return k.fetchInto(ctx, kindCRL, "/vcek/v1/"+url.PathEscape(product)+"/crl")
}

func (k *KDS) fetchInto(ctx context.Context, of kind, path string) ([]Outcome, error) {
	doc, err := k.o.Fetcher.get(ctx, of, k.o.BaseURL+path, tdx.MaxCollateralBytes)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", k.o.BaseURL+path, err)
	}
	return k.o.Cache.ImportBytes(k.o.BaseURL+path, doc.body)
}
