package verifier

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// DefaultKDS is AMD's Key Distribution Service.
const DefaultKDS = "https://kdsintf.amd.com"

// KDSOptions configures a KDS.
type KDSOptions struct {
	BaseURL string   // empty: DefaultKDS; a mirror answers the same paths
	Local   *Bundle  // asked first; may be nil
	Dir     string   // keeps what was fetched, mode 0700; empty: memory only
	Fetcher *Fetcher // nil: one of its own
}

// KDS is Endorsements from AMD's Key Distribution Service or a mirror, behind
// an imported bundle and a cache: once a chip's certificate is there, nothing
// is fetched for it again until its TCB changes. It gives no VLEK: those come
// from the cloud provider, with the Evidence or in a bundle.
type KDS struct {
	o  KDSOptions
	mu sync.Mutex
	m  map[string][]byte // URL to DER
}

// NewKDS makes a KDS. Dir is made if it is not there.
func NewKDS(o KDSOptions) (*KDS, error) {
	if o.BaseURL == "" {
		o.BaseURL = DefaultKDS
	}
	if u, err := url.Parse(o.BaseURL); err != nil || u.Host == "" {
		return nil, fmt.Errorf("KDS address %q is not a URL", o.BaseURL)
	}
	o.BaseURL = strings.TrimRight(o.BaseURL, "/")
	if o.Local == nil {
		o.Local = &Bundle{}
	}
	if o.Fetcher == nil {
		o.Fetcher = NewFetcher(FetchOptions{})
	}
	if o.Dir != "" {
		if err := os.MkdirAll(o.Dir, 0o700); err != nil {
			return nil, err
		}
	}
	return &KDS{o: o, m: map[string][]byte{}}, nil
}

// VLEK implements Endorsements.
func (k *KDS) VLEK(ctx context.Context, product string, tcb kbs.SNPTCB) ([]byte, error) {
	return k.o.Local.VLEK(ctx, product, tcb)
}

// VCEK implements Endorsements. While the service does not answer, the error
// is ErrBusy.
func (k *KDS) VCEK(ctx context.Context, product string, chipID []byte, tcb kbs.SNPTCB) ([]byte, error) {
	fits := func(f vekFacts) bool { return bytes.Equal(f.hwid, chipID) }
	if der := k.o.Local.exact(product, VCEK, fits, tcb); der != nil {
		return der, nil
	}
	at := k.vcekURL(product, chipID, tcb)
	if der := k.cached(at); der != nil {
		return der, nil
	}
	doc, err := k.o.Fetcher.get(ctx, at, maxCertificateSize)
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificate(doc.body)
	if err != nil {
		return nil, fmt.Errorf("reading the VCEK from %s: %w", at, err)
	}
	// What is not what was asked for must not stay in the cache.
	if f, err := parseVEKFacts(c); err != nil || !fits(f) || f.tcb != tcb || !f.isOf(product) {
		return nil, fmt.Errorf("the VCEK from %s is for another chip or TCB", at)
	}
	return doc.body, k.keep(at, doc.body)
}

// vcekURL is the certificate's address (57230, section 4.1). The TCB of chips
// with ids of 8 bytes, from Turin on, has a FMC component.
func (k *KDS) vcekURL(product string, chipID []byte, t kbs.SNPTCB) string {
	fmc := ""
	if len(chipID) == 8 {
		fmc = fmt.Sprintf("fmcSPL=%02d&", t.FMC)
	}
	return fmt.Sprintf("%s/vcek/v1/%s/%x?%sblSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d",
		k.o.BaseURL, url.PathEscape(product), chipID, fmc, t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// CRL fetches the current CRL of a product line's ARK, for SetCRLs.
func (k *KDS) CRL(ctx context.Context, product string) (*x509.RevocationList, error) {
	doc, err := k.o.Fetcher.get(ctx, k.o.BaseURL+"/vcek/v1/"+url.PathEscape(product)+"/crl", maxCollateralSize)
	if err != nil {
		return nil, err
	}
	crl, err := x509.ParseRevocationList(doc.body)
	if err != nil {
		return nil, fmt.Errorf("reading the CRL of %s: %w", product, err)
	}
	return crl, nil
}

func (k *KDS) cached(at string) []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	if der, ok := k.m[at]; ok || k.o.Dir == "" {
		return der
	}
	der, err := readSmall(os.DirFS(k.o.Dir), fileFor(at))
	if err != nil || der == nil {
		return nil
	}
	k.put(at, der)
	return der
}

func (k *KDS) put(at string, der []byte) {
	if len(k.m) >= maxCachedChains {
		clear(k.m)
	}
	k.m[at] = der
}

// keep writes der to memory and disk; a crash leaves the old file or the new.
func (k *KDS) keep(at string, der []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(at, der)
	if k.o.Dir == "" {
		return nil
	}
	name := filepath.Join(k.o.Dir, fileFor(at))
	f, err := os.CreateTemp(k.o.Dir, ".new-*")
	if err != nil {
		return fmt.Errorf("keeping a VCEK: %w", err)
	}
	_, err = f.Write(der)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		err = fmt.Errorf("keeping a VCEK: %w", err)
		if e := os.Remove(f.Name()); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// fileFor is the file that caches the document at a URL.
func fileFor(at string) string {
	sum := sha256.Sum256([]byte(at))
	return hex.EncodeToString(sum[:]) + ".der"
}
