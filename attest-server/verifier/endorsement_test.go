package verifier

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

func tarOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestCacheRefuses: nothing gets in that the pinned roots do not vouch for,
// however it is wrapped, and each refusal has its reason.
func TestCacheRefuses(t *testing.T) {
	v, c := newVendor(t, false), newChip(t, false)
	lookalike := newVendor(t, false, 3, 3, 3)
	good := v.vek(t, c, vekOptions{})
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	n := newIntel(t)
	collateral := *n.collateral(t)
	forged := collateral
	forged.TCBInfo = strings.Replace(forged.TCBInfo, `"svn":2`, `"svn":1`, 1)
	asJSON := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	next := testTime.AddDate(0, 1, 0)
	asPEM := func(kind string, der ...[]byte) (b []byte) {
		for _, d := range der {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: d})...)
		}
		return b
	}
	for _, tt := range []struct {
		name, reason string // no reason: taken
		content      []byte
	}{
		{"VCEK", "", good},
		{"VCEK in PEM", "", asPEM("CERTIFICATE", good)},
		{"VLEK", "", v.vek(t, c, vekOptions{vlek: true})},
		{"ASK", "", v.line.ASK.Raw},
		{"CRL", "", v.crl(t, v.line.ARK, v.ark, next).Raw},
		{"collateral", "", asJSON(collateral)},
		{"tar", "", tarOf(t, map[string][]byte{"a/b": good})},
		{"tar.gz", "", gzipOf(t, tarOf(t, map[string][]byte{"a": asPEM("CERTIFICATE", good)}))},
		{"look-alike VCEK", "certificate_chain", lookalike.vek(t, c, vekOptions{})},
		{"look-alike ARK", "neither an AMD key pinned here", lookalike.line.ARK.Raw},
		{"look-alike CRL", "CRL: ", lookalike.crl(t, lookalike.line.ARK, lookalike.ark, next).Raw},
		{"flipped bit", "certificate_chain", flipped},
		{"forged collateral", "TCB info", asJSON(forged)},
		{"Intel's CRL alone", "as part of", unhex(t, collateral.RootCACRL)},
		{"empty", "neither", []byte{}},
		{"garbage", "neither", []byte("garbage")},
		{"empty JSON", "no tcb_info", []byte("{}")},
		{"garbage in PEM", "neither", asPEM("CERTIFICATE", []byte("x"))},
		{"damaged PEM", "damaged", asPEM("CERTIFICATE", good)[:300]},
		{"tar in tar", "neither", tarOf(t, map[string][]byte{"inner.tar": tarOf(t, map[string][]byte{"a": good})})},
		{"tar cut short", "archive", tarOf(t, map[string][]byte{"a": good})[:900]},
		{"large file in tar", "at most", tarOf(t, map[string][]byte{"a": make([]byte, maxBundleFile+1)})},
		{"gzip of no tar", "archive", gzipOf(t, make([]byte, 100))},
	} {
		cache, err := OpenCache(CacheOptions{Dir: t.TempDir(), Lines: []ProductLine{v.line}, IntelRoot: n.Root})
		if err != nil {
			t.Fatal(err)
		}
		o, err := cache.ImportBytes(tt.name, tt.content)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case len(o) != 1:
			t.Errorf("%s: %d outcomes", tt.name, len(o))
		case tt.reason == "" && (o[0].Result != Added || len(cache.List()) != 1):
			t.Errorf("%s: %+v", tt.name, o[0])
		case tt.reason != "" && (o[0].Result != Refused || !strings.Contains(o[0].Reason, tt.reason) || len(cache.List()) != 0):
			t.Errorf("%s: %s %q, expected a refusal for %q", tt.name, o[0].Result, o[0].Reason, tt.reason)
		}
	}
}

// TestCacheFreshest: an older CRL never takes a newer one's place, in whatever
// order they come, and files of others are left alone.
func TestCacheFreshest(t *testing.T) {
	v := newVendor(t, false)
	dir := t.TempDir()
	old, fresh := v.crl(t, v.line.ARK, v.ark, testTime.AddDate(0, 1, 0)), v.crl(t, v.line.ARK, v.ark, testTime.AddDate(0, 2, 0), 2)
	foreign := filepath.Join(dir, "mine.crl")
	if err := os.WriteFile(foreign, old.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	c := v.cache(t, dir)
	for i, want := range []struct {
		crl   *x509.RevocationList
		added bool
	}{{old, false}, {fresh, true}, {old, false}, {fresh, false}} {
		if _, added, err := c.Add(want.crl.Raw); err != nil || added != want.added {
			t.Errorf("step %d: added %t, %v", i, added, err)
		}
	}
	if l := c.CRLs(); len(l) != 1 || !bytes.Equal(l[0].Raw, fresh.Raw) {
		t.Errorf("%d CRLs, or not the freshest", len(l))
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Error("a file that the cache did not write was removed")
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	again := v.cache(t, dir)
	if l := again.List(); len(l) != 1 || l[0].Kind != KindCRL || !l[0].Expires.Equal(fresh.NextUpdate) {
		t.Errorf("after reopening: %+v", l)
	}
}

// TestCacheServes: a report is verified from the directory by the cache, by
// LoadBundle, and by a cache filled from its export, which is the same bytes
// each time; leftovers of a crash hurt nobody.
func TestCacheServes(t *testing.T) {
	v, c := newVendor(t, true), newChip(t, true)
	dir := t.TempDir()
	cache := v.cache(t, dir)
	for _, b := range [][]byte{v.vek(t, c, vekOptions{}), v.line.ASK.Raw, v.line.ARK.Raw, v.crl(t, v.line.ARK, v.ark, testTime.AddDate(0, 1, 0)).Raw} {
		if _, added, err := cache.Add(b); err != nil || !added {
			t.Fatal(added, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, newPrefix+"1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	bundle, err := LoadBundle(os.DirFS(dir))
	if err != nil || len(bundle.Skipped()) != 0 {
		t.Fatalf("%v, skipped %v", err, bundle.Skipped())
	}
	var first, second bytes.Buffer
	if err := cache.Export(&first); err != nil {
		t.Fatal(err)
	}
	other := v.cache(t, "")
	if o, err := other.ImportBytes("x.tar", first.Bytes()); err != nil || len(o) != 4 {
		t.Fatal(o, err)
	}
	if err := other.Export(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("the export of an import differs: %v", err)
	}
	report := v.report(t, c, nil)
	for name, src := range map[string]interface {
		Endorsements
		CRLs() []*x509.RevocationList
	}{"cache": v.cache(t, dir), "bundle": bundle, "imported": other} {
		s := v.verifier(t, SNPOptions{Endorsements: src, CRLs: src.CRLs(), RequireCRL: true})
		if _, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report}, testTime); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCacheConcurrent: writers and readers of one directory in two caches.
func TestCacheConcurrent(t *testing.T) {
	v := newVendor(t, false)
	dir := t.TempDir()
	a, b := v.cache(t, dir), v.cache(t, dir)
	var veks [][]byte
	for i := range 8 {
		c := newChip(t, false)
		c.id[0] = byte(i)
		veks = append(veks, v.vek(t, c, vekOptions{}), v.crl(t, v.line.ARK, v.ark, testTime.AddDate(0, 0, i)).Raw)
	}
	var wg sync.WaitGroup
	for _, c := range []*Cache{a, b} {
		wg.Go(func() {
			for _, der := range veks {
				if _, _, err := c.Add(der); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 20 {
				if err := c.Reload(); err != nil {
					t.Error(err)
				}
				c.List()
			}
		})
	}
	wg.Wait()
	if l := v.cache(t, dir).List(); len(l) < 9 {
		t.Errorf("%d kept, expected 8 VCEKs and a CRL", len(l))
	}
}

// TestCacheFull: the bound holds, and a KDS goes on without keeping more.
func TestCacheFull(t *testing.T) {
	v, c := newVendor(t, false), newChip(t, false)
	cache := v.cache(t, "")
	for i := range maxCacheItems {
		cache.items[string(rune(i))] = &cached{Endorsement: &Endorsement{}}
	}
	if _, added, err := cache.Add(v.vek(t, c, vekOptions{})); !errors.Is(err, ErrCacheFull) || added {
		t.Errorf("added %t, %v", added, err)
	}
}

// TestCollateralSpliced: fresh TCB info beside an old CRL does not make a
// revocation forgotten, neither in a cache, whatever the order, nor between
// two sources.
func TestCollateralSpliced(t *testing.T) {
	n := newIntel(t)
	revoking := *n
	revoking.RevokedPCK, revoking.CRLAt = []int64{pckSerial}, testTime.Add(-time.Hour)
	spliced := *n
	spliced.TCB = n.TCBInfo()
	spliced.TCB["issueDate"], spliced.TCB["nextUpdate"] = testTime.Add(-time.Minute).Format(time.RFC3339), testTime.AddDate(0, 2, 0).Format(time.RFC3339)
	spliced.TCB["tcbEvaluationDataNumber"] = 19
	a, b := revoking.collateral(t), spliced.collateral(t)
	quote := n.Quote(t, verifiertest.Body([]byte{1}))
	verify := func(src CollateralSource) string {
		v, err := NewTDX(TDXOptions{Root: n.Root, Collateral: src})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, testTime)
		return ruleOf(err)
	}
	if got := verify(oneCollateral{b}); got != "" {
		t.Fatalf("the spliced one alone: refused by %s, so this shows nothing", got)
	}
	if got := verify(twoCollaterals{a, b}); got != "revocation" {
		t.Errorf("both at hand: %q", got)
	}
	for name, order := range map[string][]*Collateral{"revoking first": {a, b}, "spliced first": {b, a}} {
		c, err := OpenCache(CacheOptions{Dir: t.TempDir(), IntelRoot: n.Root})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range order {
			j, err := json.Marshal(x)
			if err != nil {
				t.Fatal(err)
			}
			if _, added, err := c.Add(j); err != nil || !added {
				t.Errorf("%s: %t, %v", name, added, err)
			}
			if _, added, err := c.Add(j); err != nil || added {
				t.Errorf("%s, again: %t, %v", name, added, err)
			}
		}
		if l := c.List(); len(l) != 1 || !strings.Contains(l[0].Subject, "evaluation 19") || verify(c) != "revocation" {
			t.Errorf("%s: %d kept, %q", name, len(l), verify(c))
		}
		if err := c.Reload(); err != nil || len(c.List()) != 1 || verify(c) != "revocation" {
			t.Errorf("%s, read again: %d kept, %v", name, len(c.List()), err)
		}
	}
}
