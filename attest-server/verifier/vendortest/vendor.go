// Package vendortest has the self-made vendors of verifiertest in the types of
// snp and tdx, for tests of the packages that stand on these.
package vendortest

import (
	"context"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// Vendor is an AMD with its product line.
type Vendor struct {
	*verifiertest.AMD
	Line snp.ProductLine
}

// NewVendor is verifiertest.NewAMD.
func NewVendor(t testing.TB, fmc bool, keys ...int) *Vendor {
	t.Helper()
	a := verifiertest.NewAMD(t, fmc, keys...)
	return &Vendor{a, snp.ProductLine{Name: a.Name, FMC: a.FMC, CPUs: []snp.CPURange{{Family: a.Family, LastModel: 0x11}}, ARK: a.ARK, ASK: a.ASK, ASVK: a.ASVK}}
}

// Verifier trusts this vendor alone.
func (v *Vendor) Verifier(t testing.TB, o snp.Options) *snp.Verifier {
	t.Helper()
	o.Roots = []snp.ProductLine{v.Line}
	s, err := snp.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Only is Endorsements with one certificate, for whatever key.
type Only []byte

// Candidates implements snp.Endorsements.
func (o Only) Candidates(context.Context, snp.EndorsementKey) ([][]byte, error) {
	return [][]byte{o}, nil
}

// Intel is verifiertest's, valid at verifiertest.Time.
type Intel struct{ verifiertest.Intel }

// NewIntel makes one.
func NewIntel(t testing.TB) *Intel {
	t.Helper()
	return &Intel{*verifiertest.NewIntel(t, verifiertest.Time)}
}

// Publish is Collateral, parsed.
func (n *Intel) Publish(t testing.TB) *tdx.Collateral {
	t.Helper()
	return parse(t, n.Collateral(t))
}

func parse(t testing.TB, b []byte) *tdx.Collateral {
	t.Helper()
	c, err := tdx.ParseCollateral(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// RealTD is verifiertest.RealTD, its collateral parsed.
func RealTD(t testing.TB) (quote []byte, c tdx.Collateral, at time.Time) {
	t.Helper()
	quote, b, at := verifiertest.RealTD(t)
	return quote, *parse(t, b), at
}

// Collaterals is a tdx.CollateralSource that always answers the same.
type Collaterals []*tdx.Collateral

// Collateral implements tdx.CollateralSource.
func (c Collaterals) Collateral(context.Context, string, string) ([]*tdx.Collateral, error) {
	return c, nil
}
