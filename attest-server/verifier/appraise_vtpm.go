package verifier

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// vtpm runs the rules for a guest behind a paravisor. There the launch digest
// covers the paravisor alone: what the guest booted is in the vTPM's PCRs.
func (r *rules) vtpm(c *VTPMClaims, ref *kbs.VTPMRules, required bool) {
	const hint = "the launch digest covers the paravisor alone: register the PCRs that carry kernel and initrd"
	switch {
	case c == nil && ref == nil:
		return
	case c == nil:
		r.add("vtpm", false, "evidence with a vTPM's quote", "none", "the workload is registered for a guest with a vTPM, such as Azure's")
		return
	case ref == nil:
		r.add("pcrs_registered", !required, "rules for the vTPM's PCRs", "none", hint)
		return
	}
	err := CheckVTPMRules(ref)
	got := fmt.Sprintf("%d", len(ref.PCRs))
	if err != nil {
		got = err.Error()
	}
	r.add("pcrs_registered", err == nil, "PCR 4 among others", got, hint)
	for _, n := range slices.Sorted(maps.Keys(ref.PCRs)) {
		i, err := strconv.Atoi(n)
		if err != nil || i < 0 || i >= len(c.PCRs) {
			r.add("pcr"+n, false, ref.PCRs[n], "no such PCR", "the registration names a PCR that does not exist")
			continue
		}
		if ref.PCRs[n] == "" {
			r.add("pcr"+n, false, "a registered value", c.PCRs[i].String(), hint)
			continue
		}
		r.hexRule("pcr"+n, c.PCRs[i], ref.PCRs[n], "what the guest booted is not what was registered")
	}
}
