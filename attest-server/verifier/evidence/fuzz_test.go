package evidence

import (
	"bytes"
	"context"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// FuzzEvidence: every shape of JSON, through to the verifier.
func FuzzEvidence(f *testing.F) {
	v, c := vendortest.NewVendor(f, false), verifiertest.NewChip(f, false)
	s := v.Verifier(f, snp.Options{Endorsements: vendortest.Only(v.VEK(f, c, verifiertest.VEKOptions{}))})
	verifiertest.Seed(f, "*-evidence.json")
	f.Add(cocoJSON(f, v.Report(f, c, nil), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			verifiertest.RefusedOnly(t, nil, err)
			return
		}
		if p.Evidence.TEE == kbs.SNP && len(p.Evidence.Report) != snp.ReportBytes {
			t.Fatalf("report of %d bytes", len(p.Evidence.Report))
		}
		if p.Evidence.TEE == kbs.SNP {
			claims, err := p.Verify(context.Background(), s, verifiertest.Time)
			verifiertest.RefusedOnly(t, claims, err)
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
