package snp

import (
	"context"
	"testing"

	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// vendor is a self-made AMD as a verifier is told of it.
type vendor struct {
	*verifiertest.AMD
	line ProductLine
}

func newVendor(t testing.TB, fmc bool, keys ...int) *vendor {
	t.Helper()
	return vendorOf(verifiertest.NewAMD(t, fmc, keys...))
}

func vendorOf(a *verifiertest.AMD) *vendor {
	return &vendor{a, ProductLine{Name: a.Name, FMC: a.FMC, CPUs: []CPURange{{Family: a.Family, LastModel: 0x11}}, ARK: a.ARK, ASK: a.ASK, ASVK: a.ASVK}}
}

func (v *vendor) verifier(t testing.TB, o Options) *Verifier {
	t.Helper()
	o.Roots = []ProductLine{v.line}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// only is Endorsements with one certificate, for whatever key.
type only []byte

func (o only) Candidates(context.Context, EndorsementKey) ([][]byte, error) {
	return [][]byte{o}, nil
}
