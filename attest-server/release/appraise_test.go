package release

import (
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// TestGrantedNeedsEverything: an appraisal that lacks any one thing grants
// nothing, even where another rule would have said so too.
func TestGrantedNeedsEverything(t *testing.T) {
	whole := func() *appraisal {
		return &appraisal{
			Checks: Checks{{Rule: "appraisal", Pass: true}}, claims: &verifier.Claims{}, appraised: true,
			registration: kbs.Digest{1}, recipient: recipient.RSA{},
		}
	}
	if a := whole(); !a.granted() || a.result(kbs.SNP).Result != kbs.Affirming {
		t.Fatal("nothing is ever granted")
	}
	for name, lose := range map[string]func(*appraisal){
		"appraised":    func(a *appraisal) { a.appraised = false },
		"claims":       func(a *appraisal) { a.claims = nil },
		"recipient":    func(a *appraisal) { a.recipient = nil },
		"registration": func(a *appraisal) { a.registration = kbs.Digest{} },
		"any rule":     func(a *appraisal) { a.Checks = nil },
		"a rule":       func(a *appraisal) { a.Add("other", false, "", "", "") },
	} {
		a := whole()
		if lose(a); a.granted() || a.result(kbs.SNP).Result != kbs.Contraindicated {
			t.Errorf("granted without %s", name)
		}
	}
}

// TestNothingEqualsNothing: what is empty on both sides is no match.
func TestNothingEqualsNothing(t *testing.T) {
	for name, add := range map[string]func(*Checks){
		"a zero digest":          func(c *Checks) { c.addDigest("d", kbs.Digest{}, kbs.Digest{}, "") },
		"none registered":        func(c *Checks) { c.addDigest("d", kbs.Digest{}, kbs.Digest{1}, "") },
		"none claimed":           func(c *Checks) { c.addDigest("d", kbs.Digest{1}, kbs.Digest{}, "") },
		"an empty nonce":         func(c *Checks) { c.AddNonce(nil, nil) },
		"no nonce":               func(c *Checks) { c.AddNonce([]byte("n"), nil) },
		"the beginning of one":   func(c *Checks) { c.AddNonce([]byte("no"), []byte("n")) },
		"no accepted type":       func(c *Checks) { c.addType("", nil) },
		"no rule":                func(*Checks) {},
		"a key with a complaint": func(c *Checks) { q := Request{}; q.SetKey(recipient.RSA{}, errors.New("weak"), "", ""); *c = q.Checks },
		"no key":                 func(c *Checks) { q := Request{}; q.SetKey(nil, nil, "", ""); *c = q.Checks },
	} {
		var c Checks
		if add(&c); c.passed() {
			t.Errorf("%s passes: %+v", name, c)
		}
	}
}
