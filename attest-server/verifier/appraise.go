package verifier

import (
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Appraise compares authenticated claims with what was registered and with
// what this attestation must be bound to. It is pure, runs every rule, and
// affirms only if all passed. Zero values on either side fail their rule.
func Appraise(c *Claims, ref kbs.ReferenceValues, want Expectation) AttestationResult {
	if c == nil {
		c = &Claims{}
	}
	r := make(rules, 0, 64) // more than most appraisals have
	for _, check := range c.Checks {
		r = append(r, check)
	}
	r.add("tee", ref.TEE.Valid() && c.TEE == ref.TEE, quote(ref.TEE), quote(c.TEE),
		"the workload is registered for another kind of machine")
	r.add("clock", !want.At.IsZero(), "the time of the appraisal", ShowTime(want.At), "the server gave no time")
	switch {
	case c.SNP != nil && c.TDX == nil && c.TEE != kbs.TDX:
		r.measurement("measurement", c.LaunchDigest, ref, want.At)
		r.reportData(c, want)
		r.snp(c.SNP, ref.SNP)
		r.advisoriesSNP(c.SNP, ref.SNP, want)
	case c.TDX != nil && c.SNP == nil && c.TEE == kbs.TDX:
		r.measurement("mrtd", c.LaunchDigest, ref, want.At)
		r.stockTDX(c)
		r.reportData(c, want)
		r.tdx(c.TDX, ref.TDX, want.At)
		r.predicted(c.LaunchDigest, ref)
		r.advisoriesTDX(c.TDX, ref.TDX, want)
	default:
		r.add("claims", false, "the claims of one TEE", "none, or of two", "")
	}
	r.vtpm(c.VTPM, ref.VTPM, want.RequirePCRs)
	for _, e := range want.Expressions {
		r = append(r, e.Apply(c, want.At))
	}
	for _, e := range ref.CEL {
		r.add(CELRule(e.Name), false, e.Expression, "not evaluated", "this program does not evaluate CEL expressions: use one that does")
	}
	return r.result(c)
}

// CELRule is the name of the rule that a CEL expression makes.
func CELRule(name string) string { return "cel:" + name }

// measurement wants the launch digest to be one of the registered ones whose
// time it is. An empty set fails, and a zero digest matches nothing.
func (r *rules) measurement(name string, got kbs.LaunchDigest, ref kbs.ReferenceValues, at time.Time) {
	var expected []string
	hint := "the guest is not the one registered: compare with `ccrun measure --against SESSION` (or EVIDENCE, a file)"
	pass, acpi := false, kbs.ACPI("")
	for _, m := range ref.Measurements {
		if m.LaunchDigest.IsZero() {
			continue
		}
		expected = append(expected, m.LaunchDigest.String())
		if m.LaunchDigest != got {
			continue
		}
		if m.NotBefore != nil && at.Before(*m.NotBefore) || m.NotAfter != nil && at.After(*m.NotAfter) {
			hint = "this measurement's period of validity is over, or has not begun"
			continue
		}
		pass, acpi = true, m.ACPI
	}
	if len(expected) == 0 {
		expected, hint = []string{"a registered launch digest"}, "no measurement is registered: nothing can match"
	}
	r.add(name, pass, strings.Join(expected, " or "), got.String(), hint)
	if acpi == kbs.ACPIAllowed { // no rule is broken, but whoever reads must see it
		r.add("acpi", true, "off, or ALLOWED by the registration", "ALLOWED: the host's ACPI code runs in the guest's kernel, and nothing measures it", "")
	}
}

// reportData wants the evidence to be bound to this session. On Azure the
// guest's data is what the vTPM signed, shorter ones padded with zeros.
func (r *rules) reportData(c *Claims, want Expectation) {
	pass := !want.ReportData.IsZero() && c.ReportData == want.ReportData
	expected, hint := want.ReportData.String(), "the evidence was made for another session, key or workload"
	if c.VTPM != nil && len(c.VTPM.ExtraData) <= len(want.ReportData) {
		var own kbs.ReportData
		copy(own[:], c.VTPM.ExtraData)
		pass = pass || !want.ReportData.IsZero() && own == want.ReportData
	}
	if want.ReportData.IsZero() {
		expected, hint = "report data to compare with", "none was given: evidence that is bound to nothing can be replayed"
	}
	r.add("report_data", pass, expected, c.ReportData.String(), hint)
}
