package verifiertest

import (
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// Failed is the names of the rules that failed.
func Failed(r verifier.AttestationResult) string {
	var names []string
	for _, f := range r.Failed() {
		names = append(names, f.Rule)
	}
	return strings.Join(names, " ")
}

// Advisories is the table that is built in.
func Advisories(t testing.TB) *advisory.Table {
	t.Helper()
	a, err := advisory.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// RefusedOnly fails on errors that blame us for hostile input.
func RefusedOnly(t *testing.T, c *verifier.Claims, err error) {
	if err != nil && verifier.RuleOf(err) == "" {
		t.Fatalf("hostile input is an error of ours: %v", err)
	}
	if (c == nil) == (err == nil) {
		t.Fatalf("claims %v with error %v", c, err)
	}
}
