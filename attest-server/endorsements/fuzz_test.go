package endorsements

import (
	"bytes"
	"context"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// FuzzBundle: endorsements of any content, then used.
func FuzzBundle(f *testing.F) {
	v, c := vendortest.NewVendor(f, false), verifiertest.NewChip(f, false)
	report := v.Report(f, c, nil)
	f.Add(v.VEK(f, c, verifiertest.VEKOptions{}))
	verifiertest.Seed(f, "*.der")
	verifiertest.Seed(f, "*.collateral.json")
	f.Add(ofPcsClient(f, vendortest.NewIntel(f).Publish(f), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		bundle := &Bundle{}
		bundle.Add(b)
		s, err := snp.New(snp.Options{Roots: []snp.ProductLine{v.Line}, Endorsements: bundle, CRLs: bundle.CRLs()})
		if err != nil {
			return
		}
		claims, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report}, verifiertest.Time)
		verifiertest.RefusedOnly(t, claims, err)
		for _, cs := range bundle.collateral {
			for _, c := range cs {
				root, err := tdx.Root()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tdx.VerifyCollateral(c, root); err != nil && verifier.RuleOf(err) == "" {
					t.Fatal(err)
				}
			}
		}
	})
}

// FuzzImport: files of any content into a cache. What gets in is exported,
// imported and exported again as the same bytes; the rest leaves nothing.
func FuzzImport(f *testing.F) {
	v, c := vendortest.NewVendor(f, false), verifiertest.NewChip(f, false)
	f.Add(v.VEK(f, c, verifiertest.VEKOptions{}))
	f.Add(v.Line.ASK.Raw)
	f.Add(v.CRL(f, v.Line.ARK, v.ARKKey, verifiertest.Time.AddDate(0, 1, 0)).Raw)
	full := cacheOf(f, v, "")
	if _, _, err := full.Add(v.Line.ARK.Raw); err != nil {
		f.Fatal(err)
	}
	var archive bytes.Buffer
	if err := full.Export(&archive); err != nil {
		f.Fatal(err)
	}
	f.Add(archive.Bytes())
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	verifiertest.Seed(f, "*.collateral.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		cache := cacheOf(t, v, "")
		outcomes, err := cache.ImportBytes("f", b)
		if err != nil {
			t.Fatal(err)
		}
		added := 0
		for _, o := range outcomes {
			if (o.Result == Refused) != (o.Reason != "") || (o.Result == Refused) != (o.Endorsement == nil) {
				t.Fatalf("%+v", o)
			}
			if o.Result == Added {
				added++
			}
		}
		if n := len(cache.List()); n > added || added > 0 && n == 0 {
			t.Fatalf("%d added, %d kept", added, n)
		}
		var first, second bytes.Buffer
		again := cacheOf(t, v, "")
		if err := cache.Export(&first); err != nil {
			t.Fatal(err)
		}
		if _, err := again.ImportBytes("f", first.Bytes()); err != nil {
			t.Fatal(err)
		}
		if err := again.Export(&second); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatalf("export of an import differs: %v", err)
		}
	})
}
