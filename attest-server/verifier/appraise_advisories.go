package verifier

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// AdvisoryRule is the name of the rule that an advisory makes where it is open.
func AdvisoryRule(id string) string { return advisoryPrefix + id }

const advisoryPrefix = "advisory:"

// advisoriesSNP refuses firmware that is known to be broken. A guest launched
// under old firmware stays suspect when the firmware beneath it is renewed.
func (r *rules) advisoriesSNP(c *SNPClaims, ref *kbs.SNPRules, want Expectation) {
	var allowed []string
	if ref != nil {
		allowed = ref.AllowAdvisories
	}
	if want.Advisories == nil {
		r.add("silicon", false, "a table of firmware advisories", "none", "the server has no table of advisories")
		return
	}
	name, demands, known := want.Advisories.SNP(c.Product, c.Silicon)
	if !known {
		name = strings.TrimSpace(c.Product + " " + c.Silicon)
	}
	expected, free := "silicon in "+want.Advisories.String(), false
	if !known {
		var leave string
		if leave, free = advisory.LeaveFor(allowed, advisory.Any, want.At); free {
			expected += ", or any: ALLOWED by " + leave
		}
	}
	r.add("silicon", known || free, expected, name,
		"nobody here knows which firmware of this processor is sound: take a newer table of advisories, or allow all")
	for _, d := range demands {
		if short := shortfalls(c, d.Floor); d.Advisory.Warning || len(short) > 0 {
			r.open(d.Advisory, d.Floor.Asks(), short, allowed, want.At)
		}
	}
}

// open adds the rule of an advisory that is open.
func (r *rules) open(a *advisory.Advisory, asked, short, allowed []string, at time.Time) {
	expected, got := strings.Join(asked, ", "), a.ID+": "+strings.Join(short, "; ")
	if a.Warning {
		r.add(AdvisoryRule(a.ID), true, "known, and refused by forbid_products alone", "WARNING: "+a.ID+": "+a.Title, "")
		return
	}
	leave, ok := advisory.LeaveFor(allowed, a.ID, at)
	if ok {
		expected += ", or less: ALLOWED by " + leave
	}
	r.add(AdvisoryRule(a.ID), ok, expected, got, a.Title+" ("+a.Source+"): have the machine's firmware updated, or allow it with --allow-advisory "+a.ID)
}

// shortfalls is what a machine lacks of f, at launch or now.
func shortfalls(c *SNPClaims, f advisory.Floor) (short []string) {
	reported, launch := advisory.Components(c.ReportedTCB), advisory.Components(c.LaunchTCB)
	for i, least := range advisory.Components(f.TCB) {
		switch {
		case reported[i].Value < least.Value:
			short = append(short, fmt.Sprintf("%s %d, needs %d", least.Name, reported[i].Value, least.Value))
		case launch[i].Value < least.Value:
			short = append(short, fmt.Sprintf("%s %d at launch, needs %d", least.Name, launch[i].Value, least.Value))
		}
	}
	for _, b := range f.MitigationBits {
		switch {
		case c.ReportVersion < mitigationVersion:
			short = append(short, fmt.Sprintf("mitigation bit %d not shown by a report of version %d, needs %d", b, c.ReportVersion, mitigationVersion))
		case c.CurrentMIT>>b&1 == 0:
			short = append(short, fmt.Sprintf("mitigation bit %d off", b))
		case c.LaunchMIT>>b&1 == 0:
			short = append(short, fmt.Sprintf("mitigation bit %d off at launch", b))
		}
	}
	for _, b := range f.PlatformBits {
		if c.PlatformInfo>>b&1 == 0 {
			short = append(short, fmt.Sprintf("PLATFORM_INFO bit %d off", b))
		}
	}
	return short
}

// mitigationVersion is the first version of a report that has the mitigation
// vectors (56860, table 23). In older ones their place is reserved.
const mitigationVersion = 5

// advisoriesTDX holds the platform's collateral and module against the table.
// What Intel's collateral itself lists is for rule advisories.
func (r *rules) advisoriesTDX(c *TDXClaims, ref *kbs.TDXRules, want Expectation) {
	var allowed []string
	if ref != nil {
		allowed = ref.AllowAdvisories
	}
	if want.Advisories == nil {
		r.add("advisories", false, "a table of firmware advisories", "none", "the server has no table of advisories")
		return
	}
	for _, d := range want.Advisories.TDX() {
		var short []string
		if n := d.Evaluation; int(c.TCBEvaluation) < n {
			short = append(short, fmt.Sprintf("TCB evaluation %d, needs %d: fetch newer collateral, with `ccrun certs fetch --update early`", c.TCBEvaluation, n))
		}
		short = append(short, shortModules(c, d.ModuleSVNs)...)
		if len(short) > 0 {
			r.open(d.Advisory, d.Asks(), short, allowed, want.At)
		}
	}
}

// shortModules says which of the TD's modules an advisory is open on: those below
// its floor, and those of a version that it does not name, which nobody has
// judged. least is empty for an advisory that is not about the module.
func shortModules(c *TDXClaims, least map[string]uint8) (short []string) {
	if len(least) == 0 {
		return nil
	}
	modules := moduleSVNs(c)
	if len(modules) == 0 {
		return []string{"the quote names no TDX module"}
	}
	for _, svn := range modules {
		switch floor, known := least[fmt.Sprint(svn[1])]; {
		case !known:
			short = append(short, fmt.Sprintf("TDX module %d, of which the table does not know", svn[1]))
		case svn[0] < floor:
			short = append(short, fmt.Sprintf("TDX module %d of SVN %d, needs %d", svn[1], svn[0], floor))
		}
	}
	return short
}

// moduleSVNs is SVN and version of the TDX module at launch and, from TDX 1.5
// on, now, if that is another.
func moduleSVNs(c *TDXClaims) (all []Hex) {
	for _, svn := range []Hex{c.TEETCBSVN, c.TEETCBSVN2} {
		if len(svn) > 1 && (len(all) == 0 || !slices.Equal(all[0], svn[:2])) {
			all = append(all, svn[:2])
		}
	}
	return all
}
