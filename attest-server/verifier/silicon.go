package verifier

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/hint"
)

// knownProducts are the lines that rules may name, besides the claims' own.
func knownProducts() []string { return []string{"Milan", "Genoa", "Turin"} }

// checkSilicon refuses floors that are not of one silicon.
func checkSilicon(name string) error {
	if advisory.ValidCPUID(name) {
		return nil
	}
	if slices.ContainsFunc(knownProducts(), func(k string) bool { return strings.EqualFold(k, name) }) {
		return hint.With(fmt.Errorf("minimum_tcbs[%q] is ambiguous: microcode counts within one silicon, of which %s has several", name, name),
			"name the silicon by CPUID family/model/stepping, as `attest-server advisories show` does: Genoa is \"19/11/1\", Genoa-X \"19/11/2\", Bergamo \"19/a0/2\"; for all machines there is minimum_tcb")
	}
	return fmt.Errorf("minimum_tcbs[%q], expected CPUID family/model/stepping in hex such as \"19/11/1\"", name)
}

// sameLine says whether a report that names no silicon but this product may be
// of that one.
func sameLine(cpuid, product string) bool {
	family, model, _ := strings.Cut(cpuid, "/")
	switch product {
	case "Milan":
		return family == "19" && model < "10"
	case "Genoa":
		return family == "19" && model >= "10"
	}
	return true
}
