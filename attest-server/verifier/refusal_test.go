package verifier

import (
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestErrorResult: a refusal as the result that is shown: one failed rule,
// nothing believed.
func TestErrorResult(t *testing.T) {
	cause := errors.New("the cause")
	err := Refuse("signature", "good", "bad", "a hint", cause)
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, cause) || e.Hint() != "a hint" {
		t.Fatalf("%v", err)
	}
	r := e.Result(kbs.SNP)
	if r.OK() || r.TEE != kbs.SNP || r.Claims != nil || len(r.Rules) != 1 || r.Rules[0].Pass || r.Rules[0].Got != "bad (the cause)" {
		t.Errorf("%+v", r)
	}
}
