package release

import (
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
