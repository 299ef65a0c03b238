package endorsements

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestKDS: the right address is asked, once, and never again while cached, in
// memory or on disk; errors and absences hold further requests back.
func TestKDS(t *testing.T) {
	v, c := vendortest.NewVendor(t, true), verifiertest.NewChip(t, true)
	der := v.VEK(t, c, verifiertest.VEKOptions{})
	var asked atomic.Int32
	status := http.StatusOK
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		time.Sleep(20 * time.Millisecond)
		if want := "/vcek/v1/Turin/0102030405060708?fmcSPL=02&blSPL=04&teeSPL=01&snpSPL=30&ucodeSPL=223"; r.URL.String() != want {
			t.Errorf("asked for %s, expected %s", r.URL, want)
		}
		w.WriteHeader(status)
		if _, err := w.Write(der); err != nil {
			t.Error(err)
		}
	}))
	defer srv.Close()
	now := verifiertest.Time
	dir := t.TempDir()
	open := func() *KDS {
		k, err := NewKDS(KDSOptions{BaseURL: srv.URL + "/", Cache: cacheOf(t, v, dir), Fetcher: NewFetcher(FetchOptions{Now: func() time.Time { return now }})})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := open()
	verify := func(k *KDS) error {
		_, err := v.Verifier(t, snp.Options{Endorsements: k}).Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: v.Report(t, c, nil)}, verifiertest.Time)
		return err
	}
	status = http.StatusTooManyRequests
	for range 3 {
		if err := verify(k); !errors.Is(err, verifier.ErrBusy) || verifier.RuleOf(err) != "" {
			t.Fatalf("while throttled: %v, expected ErrBusy and no verdict", err)
		}
	}
	if n := asked.Swap(0); n != 1 {
		t.Errorf("throttled service asked %d times, expected once", n)
	}
	now, status = now.Add(firstPause), http.StatusNotFound
	for range 3 {
		if err := verify(k); verifier.RuleOf(err) != "endorsement" {
			t.Fatalf("unknown chip: %v, expected a refusal for want of an endorsement", err)
		}
	}
	if n := asked.Swap(0); n != 1 {
		t.Errorf("asked %d times for what is not there, expected once", n)
	}
	now, status = now.Add(missingFor), http.StatusOK
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := verify(k); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := verify(open()); err != nil {
		t.Error(err)
	}
	if n := asked.Swap(0); n != 1 {
		t.Errorf("asked %d times, expected once", n)
	}
}

// TestKDSLies: a certificate that was not asked for is neither used nor kept.
func TestKDSLies(t *testing.T) {
	v, c, other := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false), verifiertest.NewChip(t, false)
	other.ID[0] ^= 1
	lookalike := vendortest.NewVendor(t, false, 3, 3, 3)
	for name, answer := range map[string][]byte{"look-alike root": lookalike.VEK(t, c, verifiertest.VEKOptions{}), "another chip": v.VEK(t, other, verifiertest.VEKOptions{}), "garbage": []byte("no DER"), "too much": make([]byte, chain.MaxCertificateBytes+1)} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if _, err := w.Write(answer); err != nil {
				t.Error(err)
			}
		}))
		cache := cacheOf(t, v, t.TempDir())
		k, err := NewKDS(KDSOptions{BaseURL: srv.URL, Cache: cache})
		if err != nil {
			t.Fatal(err)
		}
		if all, err := k.Candidates(context.Background(), snp.EndorsementKey{Product: "Milan", Signer: verifier.VCEK, ChipID: c.ID[:], TCB: c.TCB}); err == nil || all != nil || len(cache.List()) != 0 {
			t.Errorf("%s: got %d certificates, %v, %d cached", name, len(all), err, len(cache.List()))
		}
		srv.Close()
	}
}

// TestPCS: collateral, served as intel does, verifies a quote; a self-made one
// and, where it is at hand, a real one.
func TestPCS(t *testing.T) {
	t.Run("self-made", func(t *testing.T) {
		n := vendortest.NewIntel(t)
		testPCS(t, n.Root, n.Quote(t, verifiertest.Body([]byte{1})), *n.Publish(t), verifiertest.Time)
	})
	t.Run("real", func(t *testing.T) {
		quote, c, at := vendortest.RealTD(t)
		testPCS(t, nil, quote, c, at)
	})
}

func testPCS(t *testing.T, root *x509.Certificate, quote []byte, c tdx.Collateral, at time.Time) {
	fmspc, err := c.FMSPC()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]int{}
	answer := pccsOf(t, c)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.URL.String()]++
		mu.Unlock()
		answer(w, r)
	}))
	defer srv.Close()
	cache, err := OpenCache(CacheOptions{Dir: t.TempDir(), IntelRoot: root})
	if err != nil {
		t.Fatal(err)
	}
	now := at
	p, err := NewPCS(PCSOptions{BaseURL: srv.URL, Cache: cache, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	v, err := tdx.New(tdx.Options{Root: root, Collateral: p})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, at); err != nil {
			t.Fatal(err)
		}
	}
	for u, n := range asked {
		if n != 1 {
			t.Errorf("%s asked for %d times, expected once", u, n)
		}
	}
	list := cache.List()
	if len(list) != 1 || list[0].Kind != KindCollateral {
		t.Fatalf("cache holds %d", len(list))
	}
	// Soon due: answered from the cache, and fetched meanwhile, once.
	now = list[0].Expires.Add(-time.Minute)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got, err := p.Collateral(t.Context(), strings.ToUpper(fmspc), "platform"); err != nil || len(got) != 1 {
				t.Errorf("soon due: %v", err)
			}
		})
	}
	wg.Wait()
	p.wait.Wait()
	for u, n := range asked {
		if n != 2 {
			t.Errorf("%s asked for %d times once it was due, expected one more", u, n-1)
		}
	}
	if _, err := p.Collateral(t.Context(), fmspc, "processor"); err == nil {
		t.Error("collateral of a platform CA served for a processor CA")
	}
	if _, err := p.Fetch(context.Background(), "90C06F/00000", "platform"); err == nil {
		t.Error("an FMSPC that is not hex went into a URL")
	}
	if got := hexCRL([]byte(c.PCKCRL)); got != c.PCKCRL {
		t.Error("a CRL in hex is not left alone")
	}
	if _, err := hex.DecodeString(hexCRL(verifiertest.Unhex(t, c.PCKCRL))); err != nil {
		t.Error(err)
	}
}

// pccsOf answers as a PCCS that has one platform's collateral.
func pccsOf(t *testing.T, c tdx.Collateral) http.HandlerFunc {
	fmspc, err := c.FMSPC()
	if err != nil {
		t.Fatal(err)
	}
	chain := func(s string) string { return strings.ReplaceAll(url.PathEscape(s), "%2B", "+") }
	return func(w http.ResponseWriter, r *http.Request) {
		var body []byte
		switch r.URL.String() {
		case "/sgx/certification/v4/rootcacrl": // in hex, unlike Intel's
			body = []byte(c.RootCACRL)
		case "/sgx/certification/v4/pckcrl?encoding=der&ca=platform":
			w.Header().Set("SGX-PCK-CRL-Issuer-Chain", chain(c.PCKCRLIssuerChain))
			body = verifiertest.Unhex(t, c.PCKCRL)
		case "/tdx/certification/v4/tcb?fmspc=" + fmspc:
			w.Header().Set("TCB-Info-Issuer-Chain", chain(c.TCBInfoIssuerChain))
			body = []byte(`{"tcbInfo":` + c.TCBInfo + `,"signature":"` + c.TCBInfoSignature + `"}`)
		case "/tdx/certification/v4/qe/identity":
			w.Header().Set("SGX-Enclave-Identity-Issuer-Chain", chain(c.QEIdentityIssuerChain))
			body = []byte(`{"enclaveIdentity":` + c.QEIdentity + `,"signature":"` + c.QEIdentitySignature + `"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		if _, err := w.Write(body); err != nil {
			t.Error(err)
		}
	}
}
