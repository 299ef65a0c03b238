package verifier

import (
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// builtin is nil, which is refused, if the table is no good.
func builtin() *advisory.Table {
	t, _ := advisory.Builtin()
	return t
}

var testTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// failed is the names of the rules that failed.
func failed(r AttestationResult) string {
	var names []string
	for _, f := range r.Failed() {
		names = append(names, f.Rule)
	}
	return strings.Join(names, " ")
}
