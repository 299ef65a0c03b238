package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// Part is the policy of one level.
type Part struct {
	Level  string // kbs.LevelServer, kbs.LevelTenant
	Policy kbs.Policy
}

// LevelError says that the policy of a level makes no sense, or none together
// with what else is asked.
type LevelError struct {
	Level string
	Err   error
}

func (e *LevelError) Error() string { return fmt.Sprintf("the %s's policy: %v", e.Level, e.Err) }
func (e *LevelError) Unwrap() error { return e.Err }

// Merge is ref with the typed rules of the parts added, the strictest of each
// field: what allows is allowed if all allow it, what is required is required
// if one does; the greatest minimum; the intersection of lists that allow and
// the union of lists that deny. What identifies the workload stays ref's. It
// is pure: the Reference Values it returns accept exactly what ref and every
// part accept. Parts that leave nothing to accept are an error.
func Merge(ref kbs.ReferenceValues, parts ...Part) (kbs.ReferenceValues, error) {
	for _, p := range parts {
		var err error
		switch {
		case ref.TEE == kbs.TDX && p.Policy.TDX != nil:
			ref.TDX, err = mergeTDX(orEmpty(ref.TDX), *p.Policy.TDX)
		case ref.TEE != kbs.TDX && p.Policy.SNP != nil:
			ref.SNP, err = mergeSNP(orEmpty(ref.SNP), *p.Policy.SNP)
		default:
			continue
		}
		if err != nil {
			return kbs.ReferenceValues{}, &LevelError{p.Level, fmt.Errorf("nothing could match it and the other rules: %w", err)}
		}
	}
	return ref, nil
}

func orEmpty[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

func mergeSNP(a, b kbs.SNPRules) (*kbs.SNPRules, error) {
	m := a // VMPL, HostData
	m.AllowDebug = a.AllowDebug && b.AllowDebug
	m.AllowMigrateMA = a.AllowMigrateMA && b.AllowMigrateMA
	m.AllowProvisional = a.AllowProvisional && b.AllowProvisional
	m.AllowCXL = a.AllowCXL && b.AllowCXL
	m.ForbidSMT = a.ForbidSMT || b.ForbidSMT
	m.RequireAliasCheck = a.RequireAliasCheck || b.RequireAliasCheck
	m.RequireCiphertextHiding = a.RequireCiphertextHiding || b.RequireCiphertextHiding
	m.RequireECC = a.RequireECC || b.RequireECC
	m.RequireRAPLDisabled = a.RequireRAPLDisabled || b.RequireRAPLDisabled
	m.RequireTSME = a.RequireTSME || b.RequireTSME
	m.RequireIOMMUWriteSafe = a.RequireIOMMUWriteSafe || b.RequireIOMMUWriteSafe
	m.RequirePageSwapDisable = a.RequirePageSwapDisable || b.RequirePageSwapDisable
	m.ForbidPlatformSMT = a.ForbidPlatformSMT || b.ForbidPlatformSMT
	m.ForbidTIO = a.ForbidTIO || b.ForbidTIO
	m.RequireMitigations = joined(a.RequireMitigations, b.RequireMitigations)
	m.MinimumABI = maxABI(a.MinimumABI, b.MinimumABI)
	m.MinimumTCB = maxTCB(a.MinimumTCB, b.MinimumTCB)
	m.MinimumTCBs = maxTCBs(a.MinimumTCBs, b.MinimumTCBs)
	m.MinimumGuestSVN = max(a.MinimumGuestSVN, b.MinimumGuestSVN)
	m.ForbidProducts = union(a.ForbidProducts, b.ForbidProducts)
	m.AllowAdvisories = advisory.Common(a.AllowAdvisories, b.AllowAdvisories)
	var errs [4]error
	m.ChipIDs, errs[0] = intersect("chip_ids", a.ChipIDs, b.ChipIDs, longChipID)
	m.IDKeyDigests, errs[1] = intersect("id_key_digests", a.IDKeyDigests, b.IDKeyDigests, strings.ToLower)
	m.AuthorKeyDigests, errs[2] = intersect("author_key_digests", a.AuthorKeyDigests, b.AuthorKeyDigests, strings.ToLower)
	m.Signers, errs[3] = intersect("signers", a.Signers, b.Signers, same)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	// Each alone may be fine, and all together not: every product denied, chip
	// ids that only a signer who is out could prove.
	return &m, verifier.CheckSNPRules(&m)
}

func mergeTDX(a, b kbs.TDXRules) (*kbs.TDXRules, error) {
	m := a // RTMRs, MRConfigID, MROwner, MROwnerConfig
	m.AllowDebug = a.AllowDebug && b.AllowDebug
	m.AllowMigration = a.AllowMigration && b.AllowMigration
	m.AllowPerfMon = a.AllowPerfMon && b.AllowPerfMon
	m.RequireSEPTVEDisable = a.RequireSEPTVEDisable || b.RequireSEPTVEDisable
	// These two add to UpToDate and to no advisories: nothing left is no error.
	m.TCBStatus = common(a.TCBStatus, b.TCBStatus, same)
	m.AllowAdvisories = advisory.Common(a.AllowAdvisories, b.AllowAdvisories)
	m.MinimumTCBEvaluation = max(a.MinimumTCBEvaluation, b.MinimumTCBEvaluation)
	var err error
	if m.MachineIDs, err = intersect("machine_ids", a.MachineIDs, b.MachineIDs, strings.ToLower); err != nil {
		return nil, err
	}
	if m.MRSEAM, err = intersect("mr_seam", a.MRSEAM, b.MRSEAM, strings.ToLower); err != nil {
		return nil, err
	}
	if m.XFAM, err = bytewise("xfam", a.XFAM, b.XFAM, func(x, y byte) byte { return x & y }); err != nil {
		return nil, err
	}
	if m.MinimumTEETCB, err = bytewise("minimum_tee_tcb", a.MinimumTEETCB, b.MinimumTEETCB, func(x, y byte) byte { return max(x, y) }); err != nil {
		return nil, err
	}
	if strings.Trim(m.XFAM, "0") == "" && m.XFAM != "" {
		return nil, fmt.Errorf("xfam: %s and %s have no bit in common", a.XFAM, b.XFAM)
	}
	return &m, verifier.CheckTDXRules(&m)
}

func maxABI(a, b *kbs.SNPABI) *kbs.SNPABI {
	switch {
	case a == nil:
		return b
	case b == nil || a.Major > b.Major || a.Major == b.Major && a.Minor >= b.Minor:
		return a
	}
	return b
}

func maxTCB(a, b *kbs.SNPTCB) *kbs.SNPTCB {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	m := a.Max(*b)
	return &m
}

// maxTCBs is the greater of each silicon's.
func maxTCBs(a, b map[string]*kbs.SNPTCB) map[string]*kbs.SNPTCB {
	if len(a)+len(b) == 0 {
		return nil
	}
	m := map[string]*kbs.SNPTCB{}
	for _, one := range []map[string]*kbs.SNPTCB{a, b} {
		for cpuid, floor := range one {
			m[cpuid] = maxTCB(m[cpuid], floor)
		}
	}
	return m
}

func same(s string) string { return s }

// longChipID is the form in which the appraisal compares: Turin's ids of 8
// bytes are padded with zeros.
func longChipID(s string) string {
	if len(s) == 16 {
		s += strings.Repeat("0", 112)
	}
	return strings.ToLower(s)
}

func union(a, b []string) []string {
	m := slices.Clone(a)
	for _, x := range b {
		if !slices.ContainsFunc(m, func(y string) bool { return strings.EqualFold(x, y) }) {
			m = append(m, x)
		}
	}
	return m
}

// joined is the bits of either.
func joined(a, b []int) []int {
	m := slices.Concat(a, b)
	slices.Sort(m)
	return slices.Compact(m)
}

// common is what two lists share.
func common(a, b []string, form func(string) string) []string {
	var m []string
	for _, x := range a {
		if slices.ContainsFunc(b, func(y string) bool { return form(x) == form(y) }) {
			m = append(m, x)
		}
	}
	return m
}

// intersect is common of two lists that allow, of which an empty one allows
// anything. That is why two lists that share nothing must be an error.
func intersect(name string, a, b []string, form func(string) string) ([]string, error) {
	switch {
	case len(a) == 0:
		return b, nil
	case len(b) == 0:
		return a, nil
	}
	m := common(a, b, form)
	if len(m) == 0 {
		return nil, fmt.Errorf("%s: %s is allowed here, %s there, and nothing by both", name, listed(a), listed(b))
	}
	return m, nil
}

func listed(list []string) string {
	const most = 3
	if len(list) > most {
		return strings.Join(list[:most], ", ") + fmt.Sprintf(" and %d more", len(list)-most)
	}
	return strings.Join(list, ", ")
}

// bytewise combines two values in hex, of which an empty one asks for nothing.
func bytewise(name, a, b string, combine func(x, y byte) byte) (string, error) {
	switch {
	case a == "":
		return b, nil
	case b == "":
		return a, nil
	}
	x, err := hex.DecodeString(a)
	y, err2 := hex.DecodeString(b)
	if err != nil || err2 != nil || len(x) != len(y) {
		return "", fmt.Errorf("%s %q and %q: expected as many hex digits", name, a, b)
	}
	for i := range x {
		x[i] = combine(x[i], y[i])
	}
	return hex.EncodeToString(x), nil
}
