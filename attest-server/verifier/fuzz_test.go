package verifier

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// seed adds the real evidence whose names match, where it is at hand.
func seed(f *testing.F, pattern string) {
	dir := os.Getenv("CCRUN_SHARED")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared")
	}
	names, err := filepath.Glob(filepath.Join(dir, "vectors", "evidence", pattern))
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		f.Add(readFile(f, n))
	}
}

// refusedOnly fails on errors that blame us for hostile input.
func refusedOnly(t *testing.T, c *Claims, err error) {
	if err != nil && ruleOf(err) == "" {
		t.Fatalf("hostile input is an error of ours: %v", err)
	}
	if (c == nil) == (err == nil) {
		t.Fatalf("claims %v with error %v", c, err)
	}
}

// FuzzSNPReport: no report makes the verifier panic, and none but those that
// the key signed is accepted.
func FuzzSNPReport(f *testing.F) {
	v, c := newVendor(f, false), newChip(f, false)
	good := v.report(f, c, nil)
	s := v.verifier(f, SNPOptions{Endorsements: store(v.vek(f, c, vekOptions{}))})
	f.Add(good)
	seed(f, "*.report.bin")
	f.Fuzz(func(t *testing.T, b []byte) {
		claims, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: b}, testTime)
		refusedOnly(t, claims, err)
		if err == nil && !bytes.Equal(b[:0x2a0], good[:0x2a0]) {
			t.Fatal("a report that was never signed is accepted")
		}
	})
}

// FuzzCertTable: no table makes the verifier panic or allocate beyond it.
func FuzzCertTable(f *testing.F) {
	v, c := newVendor(f, false), newChip(f, false)
	report, der := v.report(f, c, nil), v.vek(f, c, vekOptions{})
	s := v.verifier(f, SNPOptions{})
	f.Add(certTable(abi.VcekGUID, der))
	f.Add(wrapping(der))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		claims, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report, Certificates: b}, testTime)
		refusedOnly(t, claims, err)
		keys, err := certTableKeys(b, abi.VcekGUID)
		for _, k := range keys {
			if err != nil || !bytes.Contains(b, k) {
				t.Fatal("a certificate that is not in the table")
			}
		}
	})
}

// FuzzTDXQuote: whatever parses is within the quote.
func FuzzTDXQuote(f *testing.F) {
	v, err := NewTDX(TDXOptions{})
	if err != nil {
		f.Fatal(err)
	}
	seed(f, "*.quote.bin")
	f.Add(make([]byte, 700))
	f.Fuzz(func(t *testing.T, b []byte) {
		claims, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: b}, testTime)
		refusedOnly(t, claims, err)
		if q, err := parseTDQuote(b); err == nil {
			if !bytes.HasPrefix(b, q.signed) || len(q.body) != len(q.signed)-48-6*b2i(q.version == 5) {
				t.Fatal("signed part is not the head of the quote")
			}
			q.claims()
			q.qe()
		}
	})
}

// FuzzEvidence: every shape of JSON, through to the verifier.
func FuzzEvidence(f *testing.F) {
	v, c := newVendor(f, false), newChip(f, false)
	s := v.verifier(f, SNPOptions{Endorsements: store(v.vek(f, c, vekOptions{}))})
	seed(f, "*-evidence.json")
	f.Add(cocoJSON(f, v.report(f, c, nil), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseEvidence(b)
		if err != nil {
			refusedOnly(t, nil, err)
			return
		}
		if p.Evidence.TEE == kbs.SNP && len(p.Evidence.Report) != SNPReportSize {
			t.Fatalf("report of %d bytes", len(p.Evidence.Report))
		}
		if p.Evidence.TEE == kbs.SNP {
			claims, err := p.Verify(context.Background(), s, testTime)
			refusedOnly(t, claims, err)
		}
	})
}

// FuzzBundle: endorsements of any content, then used.
func FuzzBundle(f *testing.F) {
	v, c := newVendor(f, false), newChip(f, false)
	report := v.report(f, c, nil)
	f.Add(v.vek(f, c, vekOptions{}))
	seed(f, "*.der")
	seed(f, "*.collateral.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		bundle := &Bundle{}
		bundle.Add(b)
		s, err := NewSNP(SNPOptions{Roots: []ProductLine{v.line}, Endorsements: bundle, CRLs: bundle.CRLs()})
		if err != nil {
			return
		}
		claims, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report}, testTime)
		refusedOnly(t, claims, err)
		for _, cs := range bundle.collateral {
			for _, c := range cs {
				root, err := intelRoot()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := verifyCollateral(c, root); err != nil && ruleOf(err) == "" {
					t.Fatal(err)
				}
			}
		}
	})
}

// FuzzTPMQuote: the vTPM's message, before its signature is worth anything.
func FuzzTPMQuote(f *testing.F) {
	f.Add([]byte("\xffTCG\x80\x18\x00\x02\x00\x0b\x00\x01x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if extra, digest, err := parseTPMQuote(b); err == nil && (!bytes.Contains(b, extra) || !bytes.Contains(b, digest)) {
			t.Fatal("data from elsewhere")
		}
	})
}

// FuzzImport: files of any content into a cache. What gets in is exported,
// imported and exported again as the same bytes; the rest leaves nothing.
func FuzzImport(f *testing.F) {
	v, c := newVendor(f, false), newChip(f, false)
	f.Add(v.vek(f, c, vekOptions{}))
	f.Add(v.line.ASK.Raw)
	f.Add(v.crl(f, v.line.ARK, v.ark, testTime.AddDate(0, 1, 0)).Raw)
	full := v.cache(f, "")
	if _, _, err := full.Add(v.line.ARK.Raw); err != nil {
		f.Fatal(err)
	}
	var archive bytes.Buffer
	if err := full.Export(&archive); err != nil {
		f.Fatal(err)
	}
	f.Add(archive.Bytes())
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	seed(f, "*.collateral.json")
	f.Fuzz(func(t *testing.T, b []byte) {
		cache := v.cache(t, "")
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
		again := v.cache(t, "")
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
