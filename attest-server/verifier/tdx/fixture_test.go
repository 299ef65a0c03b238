package tdx

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// intel is a self-made intel, valid at verifiertest.Time.
type intel struct{ verifiertest.Intel }

func newIntel(t testing.TB) *intel {
	t.Helper()
	return &intel{*verifiertest.NewIntel(t, verifiertest.Time)}
}

func (n *intel) collateral(t testing.TB) *Collateral {
	t.Helper()
	c, err := ParseCollateral(n.Intel.Collateral(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// realTD is a real quote with its collateral, good at the returned time.
func realTD(t testing.TB) (quote []byte, c Collateral, at time.Time) {
	t.Helper()
	quote, b, at := verifiertest.RealTD(t)
	parsed, err := ParseCollateral(b)
	if err != nil {
		t.Fatal(err)
	}
	return quote, *parsed, at
}

// oneCollateral is a CollateralSource.
type oneCollateral struct{ c *Collateral }

func (o oneCollateral) Collateral(context.Context, string, string) ([]*Collateral, error) {
	return []*Collateral{o.c}, nil
}

// parsedTD is realTD's quote and the chain that signed it.
func parsedTD(t testing.TB) (*tdQuote, *pckChain, Collateral, *x509.Certificate) {
	t.Helper()
	quote, c, _ := realTD(t)
	q, err := parseQuote(quote)
	if err != nil {
		t.Fatal(err)
	}
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	pck, err := checkPCKChain(q.pckChain, root)
	if err != nil {
		t.Fatal(err)
	}
	return q, pck, c, root
}
