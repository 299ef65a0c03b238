package tdx

import (
	"bytes"
	"context"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// FuzzTDXQuote: whatever parses is within the quote.
func FuzzTDXQuote(f *testing.F) {
	v, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	verifiertest.Seed(f, "*.quote.bin")
	f.Add(make([]byte, 700))
	f.Fuzz(func(t *testing.T, b []byte) {
		claims, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: b}, verifiertest.Time)
		verifiertest.RefusedOnly(t, claims, err)
		if q, err := parseQuote(b); err == nil {
			if !bytes.HasPrefix(b, q.signed) || len(q.body) != len(q.signed)-48-6*int(q.version-4) {
				t.Fatal("signed part is not the head of the quote")
			}
			q.claims()
			q.qe()
		}
	})
}
