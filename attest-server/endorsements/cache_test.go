package endorsements

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

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
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
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	lookalike := vendortest.NewVendor(t, false, 3, 3, 3)
	good := v.VEK(t, c, verifiertest.VEKOptions{})
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	n := vendortest.NewIntel(t)
	collateral := *n.Publish(t)
	forged := collateral
	forged.TCBInfo = strings.Replace(forged.TCBInfo, `"svn":2`, `"svn":1`, 1)
	asJSON := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	next := verifiertest.Time.AddDate(0, 1, 0)
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
		{"VLEK", "", v.VEK(t, c, verifiertest.VEKOptions{VLEK: true})},
		{"ASK", "", v.Line.ASK.Raw},
		{"CRL", "", v.CRL(t, v.Line.ARK, v.ARKKey, next).Raw},
		{"collateral", "", asJSON(collateral)},
		{"tar", "", tarOf(t, map[string][]byte{"a/b": good})},
		{"tar.gz", "", gzipOf(t, tarOf(t, map[string][]byte{"a": asPEM("CERTIFICATE", good)}))},
		{"look-alike VCEK", "certificate_chain", lookalike.VEK(t, c, verifiertest.VEKOptions{})},
		{"look-alike ARK", "neither an AMD key pinned here", lookalike.Line.ARK.Raw},
		{"look-alike CRL", "CRL: ", lookalike.CRL(t, lookalike.Line.ARK, lookalike.ARKKey, next).Raw},
		{"flipped bit", "certificate_chain", flipped},
		{"forged collateral", "TCB info", asJSON(forged)},
		{"Intel's CRL alone", "as part of", verifiertest.Unhex(t, collateral.RootCACRL)},
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
		cache, err := OpenCache(CacheOptions{Dir: t.TempDir(), Lines: []snp.ProductLine{v.Line}, IntelRoot: n.Root})
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
	v := vendortest.NewVendor(t, false)
	dir := t.TempDir()
	old, fresh := v.CRL(t, v.Line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 1, 0)), v.CRL(t, v.Line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 2, 0), 2)
	foreign := filepath.Join(dir, "mine.crl")
	if err := os.WriteFile(foreign, old.Raw, 0o600); err != nil {
		t.Fatal(err)
	}
	c := cacheOf(t, v, dir)
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
	again := cacheOf(t, v, dir)
	if l := again.List(); len(l) != 1 || l[0].Kind != KindCRL || !l[0].Expires.Equal(fresh.NextUpdate) {
		t.Errorf("after reopening: %+v", l)
	}
}

// TestCacheServes: a report is verified from the directory by the cache, by
// LoadBundle, and by a cache filled from its export, which is the same bytes
// each time; leftovers of a crash hurt nobody.
func TestCacheServes(t *testing.T) {
	v, c := vendortest.NewVendor(t, true), verifiertest.NewChip(t, true)
	dir := t.TempDir()
	cache := cacheOf(t, v, dir)
	for _, b := range [][]byte{v.VEK(t, c, verifiertest.VEKOptions{}), v.Line.ASK.Raw, v.Line.ARK.Raw, v.CRL(t, v.Line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 1, 0)).Raw} {
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
	other := cacheOf(t, v, "")
	if o, err := other.ImportBytes("x.tar", first.Bytes()); err != nil || len(o) != 4 {
		t.Fatal(o, err)
	}
	if err := other.Export(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("the export of an import differs: %v", err)
	}
	report := v.Report(t, c, nil)
	for name, src := range map[string]interface {
		snp.Endorsements
		CRLs() []*x509.RevocationList
	}{"cache": cacheOf(t, v, dir), "bundle": bundle, "imported": other} {
		s := v.Verifier(t, snp.Options{Endorsements: src, CRLs: src.CRLs(), RequireCRL: true})
		if _, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report}, verifiertest.Time); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCacheConcurrent: writers and readers of one directory in two caches.
func TestCacheConcurrent(t *testing.T) {
	v := vendortest.NewVendor(t, false)
	dir := t.TempDir()
	a, b := cacheOf(t, v, dir), cacheOf(t, v, dir)
	var veks [][]byte
	for i := range 8 {
		c := verifiertest.NewChip(t, false)
		c.ID[0] = byte(i)
		veks = append(veks, v.VEK(t, c, verifiertest.VEKOptions{}), v.CRL(t, v.Line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 0, i)).Raw)
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
	if l := cacheOf(t, v, dir).List(); len(l) < 9 {
		t.Errorf("%d kept, expected 8 VCEKs and a CRL", len(l))
	}
}

// TestCacheFull: the bound holds, and a KDS goes on without keeping more.
func TestCacheFull(t *testing.T) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	cache := cacheOf(t, v, "")
	for i := range maxCacheItems {
		cache.items[string(rune(i))] = &cached{Endorsement: &Endorsement{}}
	}
	if _, added, err := cache.Add(v.VEK(t, c, verifiertest.VEKOptions{})); !errors.Is(err, ErrCacheFull) || added {
		t.Errorf("added %t, %v", added, err)
	}
}

// cacheOf is a Cache under the vendor's roots.
func cacheOf(t testing.TB, v *vendortest.Vendor, dir string) *Cache {
	t.Helper()
	c, err := OpenCache(CacheOptions{Dir: dir, Lines: []snp.ProductLine{v.Line}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
