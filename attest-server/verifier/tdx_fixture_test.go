package verifier

import (
	"testing"

	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// intel is a self-made Intel, valid at testTime.
type intel struct{ verifiertest.Intel }

const pckSerial = verifiertest.PCKSerial

func newIntel(t testing.TB) *intel {
	t.Helper()
	return &intel{*verifiertest.NewIntel(t, testTime)}
}

func (n *intel) collateral(t testing.TB) *Collateral {
	t.Helper()
	c, err := ParseCollateral(n.Collateral(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}
