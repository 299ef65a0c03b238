package tdx

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestQuotesThatNameTheNextStep: a quote that no appraisal can use says what its
// owner can do about it.
func TestQuotesThatNameTheNextStep(t *testing.T) {
	n := newIntel(t)
	quote := n.Quote(t, verifiertest.Body([]byte{1}))
	auth := tdHeaderSize + tdBodySize + 4
	outer := auth + tdSignatureSize + tdKeySize
	inner := outer + 6 + qeReportSize + tdSignatureSize
	inner += 2 + int(binary.LittleEndian.Uint16(quote[inner:]))
	v, err := New(Options{Root: n.Root})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		change     func(q []byte) []byte
		rule, next string
	}{
		"outer type 5":      {func(q []byte) []byte { q[outer] = 5; return q }, "evidence_format", "QGS"},
		"inner type 1":      {func(q []byte) []byte { q[inner] = 1; return q }, "evidence_format", "PCK certificate"},
		"inner type 3":      {func(q []byte) []byte { q[inner] = 3; return q }, "evidence_format", "PCK certificate"},
		"inner type 7":      {func(q []byte) []byte { q[inner] = 7; return q }, "evidence_format", "PCK certificate"},
		"P-384":             {func(q []byte) []byte { q[2] = 3; return q }, "signature_algorithm", "P-256"},
		"cut in the header": {func(q []byte) []byte { return q[:40] }, "evidence_format", "whole quote"},
		"cut in the body":   {func(q []byte) []byte { return q[:300] }, "evidence_format", "whole quote"},
		"cut by one":        {func(q []byte) []byte { return q[:len(q)-1] }, "evidence_format", "whole quote"},
	} {
		_, err := v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: x.change(slices.Clone(quote))}, verifiertest.Time)
		var refused *verifier.Error
		if !errors.As(err, &refused) || refused.Rule.Rule != x.rule || !strings.Contains(refused.Hint(), x.next) || refused.Lacking {
			t.Errorf("%s: %v, hint %q, expected %s and %q", name, err, refusedHint(refused), x.rule, x.next)
		}
	}
}

func refusedHint(e *verifier.Error) string {
	if e == nil {
		return ""
	}
	return e.Hint()
}
