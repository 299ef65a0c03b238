package endorsements

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestCollateralSpliced: fresh TCB info beside an old CRL does not make a
// revocation forgotten, neither in a cache, whatever the order, nor between
// two sources.
func TestCollateralSpliced(t *testing.T) {
	n := vendortest.NewIntel(t)
	revoking := *n
	revoking.RevokedPCK, revoking.CRLAt = []int64{verifiertest.PCKSerial}, verifiertest.Time.Add(-time.Hour)
	spliced := *n
	spliced.TCB = n.TCBInfo()
	spliced.TCB["issueDate"], spliced.TCB["nextUpdate"] = verifiertest.Time.Add(-time.Minute).Format(time.RFC3339), verifiertest.Time.AddDate(0, 2, 0).Format(time.RFC3339)
	spliced.TCB["tcbEvaluationDataNumber"] = 19
	a, b := revoking.Publish(t), spliced.Publish(t)
	quote := n.Quote(t, verifiertest.Body([]byte{1}))
	verify := func(src tdx.CollateralSource) string {
		v, err := tdx.New(tdx.Options{Root: n.Root, Collateral: src})
		if err != nil {
			t.Fatal(err)
		}
		_, err = v.Verify(context.Background(), kbs.Evidence{TEE: kbs.TDX, Report: quote}, verifiertest.Time)
		return verifier.RuleOf(err)
	}
	if got := verify(vendortest.Collaterals{b}); got != "" {
		t.Fatalf("the spliced one alone: refused by %s, so this shows nothing", got)
	}
	if got := verify(vendortest.Collaterals{a, b}); got != "revocation" {
		t.Errorf("both at hand: %q", got)
	}
	for name, order := range map[string][]*tdx.Collateral{"revoking first": {a, b}, "spliced first": {b, a}} {
		c, err := OpenCache(CacheOptions{Dir: t.TempDir(), IntelRoot: n.Root})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range order {
			j, err := json.Marshal(x)
			if err != nil {
				t.Fatal(err)
			}
			if _, added, err := c.Add(j); err != nil || !added {
				t.Errorf("%s: %t, %v", name, added, err)
			}
			if _, added, err := c.Add(j); err != nil || added {
				t.Errorf("%s, again: %t, %v", name, added, err)
			}
		}
		if l := c.List(); len(l) != 1 || !strings.Contains(l[0].Subject, "evaluation 19") || verify(c) != "revocation" {
			t.Errorf("%s: %d kept, %q", name, len(l), verify(c))
		}
		if err := c.Reload(); err != nil || len(c.List()) != 1 || verify(c) != "revocation" {
			t.Errorf("%s, read again: %d kept, %v", name, len(c.List()), err)
		}
	}
}
