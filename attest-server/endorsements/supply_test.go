package endorsements

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestSupply: offline nothing is asked for; online a TD's collateral is
// fetched when there is none at all, kept over a restart, and renewed in the
// background where the operator's own is there.
func TestSupply(t *testing.T) {
	quote, c, at := vendortest.RealTD(t)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	dir, cache := t.TempDir(), t.TempDir()
	var mu sync.Mutex
	asked := 0
	down := false
	pccs := pccsOf(t, c)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked++
		d := down
		mu.Unlock()
		if d {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		pccs(w, r)
	}))
	defer srv.Close()
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		n := asked
		asked = 0
		return n
	}
	open := func(o SupplyOptions) *Supply {
		o.KDSURL, o.PCSURL, o.Now = srv.URL, srv.URL, func() time.Time { return at }
		s, err := OpenSupply(o)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	verify := func(s *Supply) error {
		v, err := tdx.New(tdx.Options{Collateral: s})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, at)
		return err
	}
	if err := verify(open(SupplyOptions{})); verifier.RuleOf(err) != "collateral" || count() != 0 {
		t.Errorf("offline with nothing: %v", err)
	}
	if err := verify(open(SupplyOptions{CacheDir: cache})); err != nil || count() != 4 {
		t.Errorf("online: %v", err)
	}
	if err := verify(open(SupplyOptions{CacheDir: cache})); err != nil || count() != 0 {
		t.Errorf("online after a restart: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "c.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify(open(SupplyOptions{Dir: dir})); err != nil || count() != 0 {
		t.Errorf("offline: %v", err)
	}
	s := open(SupplyOptions{Dir: dir, CacheDir: t.TempDir()})
	down = true
	if err := verify(s); err != nil {
		t.Errorf("the operator's while the service is down: %v", err)
	}
	s.online.PCS.wait.Wait()
	if count() == 0 || len(s.online.Cache.List()) != 0 {
		t.Error("no attempt was made to renew the operator's collateral")
	}
	if err := s.Refresh(context.Background()); !errors.Is(err, verifier.ErrBusy) {
		t.Errorf("refresh while the service is down: %v", err)
	}
	if l := s.Expiring(at, 365*24*time.Hour); len(l) != 1 || l[0].Kind != KindCollateral {
		t.Errorf("expiring: %d", len(l))
	}
	if l := s.Expiring(at, time.Minute); len(l) != 0 {
		t.Errorf("expiring within a minute: %d", len(l))
	}
	if _, err := OpenSupply(SupplyOptions{Dir: filepath.Join(dir, "c.json")}); err == nil {
		t.Error("a file was taken for a directory")
	}
	if _, err := OpenSupply(SupplyOptions{CacheDir: cache, KDSURL: "kds.example.com"}); err == nil {
		t.Error("an address without scheme was taken")
	}
}

// TestSupplyCRL: a CRL that the operator drops into the directory, or that is
// fetched, counts from the next report on.
func TestSupplyCRL(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "vcek"), v.VEK(t, c, verifiertest.VEKOptions{}), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenSupply(SupplyOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	amd := v.Verifier(t, snp.Options{Endorsements: s})
	if err := s.Watch(amd); err != nil {
		t.Fatal(err)
	}
	verify := func() string {
		_, err := amd.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: v.Report(t, c, nil)}, verifiertest.Time)
		return verifier.RuleOf(err)
	}
	if got := verify(); got != "" {
		t.Errorf("before: %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "crl"), v.CRL(t, v.Line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 1, 0), 2).Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := verify(); got != "revocation" {
		t.Errorf("after a CRL revoked the ASK: refused by %q", got)
	}
	if err := os.Remove(filepath.Join(dir, "crl")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reload(); err == nil {
		t.Error("a CRL that is gone was taken for a wish")
	}
	if got := verify(); got != "revocation" {
		t.Errorf("after a reload that was refused: refused by %q", got)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.Run(ctx, func(error) { t.Error("an offline supply fetched") })
	if ctx.Err() != nil {
		t.Error("Run of an offline supply did not return")
	}
}

// TestSupplyUndo: a reload that is taken back leaves everything as it was.
func TestSupplyUndo(t *testing.T) {
	v, dir := vendortest.NewVendor(t, false), t.TempDir()
	s, err := OpenSupply(SupplyOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "crl"), v.CRL(t, v.Line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 1, 0), 2).Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	undo, err := s.Reload()
	if err != nil || len(s.CRLs()) != 1 {
		t.Fatalf("%v, %d CRLs", err, len(s.CRLs()))
	}
	if err := undo(); err != nil || len(s.CRLs()) != 0 {
		t.Errorf("taken back: %v, %d CRLs", err, len(s.CRLs()))
	}
}

// TestSupplyImpostors is TestBundleImpostors for a server: the operator's
// directory may hold look-alikes of the right certificate, in any order.
func TestSupplyImpostors(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	lookalike := vendortest.NewVendor(t, false, 3, 3, 3)
	good, bad := v.VEK(t, c, verifiertest.VEKOptions{}), lookalike.VEK(t, c, verifiertest.VEKOptions{})
	for name, files := range map[string][][]byte{"first": {good, bad, bad}, "in the middle": {bad, good, bad}, "last": {bad, bad, good}} {
		dir := t.TempDir()
		for i, b := range files {
			if err := os.WriteFile(filepath.Join(dir, string(rune('a'+i))), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s, err := OpenSupply(SupplyOptions{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		ev := kbs.Evidence{TEE: kbs.SNP, Report: v.Report(t, c, nil)}
		if _, err := v.Verifier(t, snp.Options{Endorsements: s}).Verify(t.Context(), ev, verifiertest.Time); err != nil {
			t.Errorf("the right one %s: %v", name, err)
		}
	}
}
