package verifier

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// stockQbootMRTD is the MRTD of libkrun's own TDX firmware: the same for every
// kernel, initrd, memory size and number of CPUs, since the TD's payload is
// added unmeasured and no RTMR is ever extended.
const stockQbootMRTD = "01bf925b3be350ba0285f7d57b6cc5c7d187fa8de5365b6a0ab7a78bf1cb1881ea5cfda02f189555df4c778e0720b653"

// stockTDX refuses the MRTD that every libkrun TD has, even a registered one.
func (r *rules) stockTDX(c *Claims) {
	r.add("mrtd_proves_payload", c.LaunchDigest.String() != stockQbootMRTD, "an MRTD that covers more than libkrun's stock TDX firmware",
		c.LaunchDigest.String(), "libkrun's stock TDX qboot measures neither kernel nor initrd: this MRTD says nothing of what runs")
}

// tdx runs the rules for a TD quote. No rules registered fails on the RTMRs.
func (r *rules) tdx(c *TDXClaims, ref *kbs.TDXRules, at time.Time) {
	if ref == nil {
		ref = &kbs.TDXRules{}
	}
	r.tdxAttributes(c, ref)
	r.tdxRTMRs(c, ref)
	r.eventLog(c)
	r.hexRule("mr_config_id", c.MRConfigID, ref.MRConfigID, "the host launched the TD with another MRCONFIGID")
	r.hexRule("mr_owner", c.MROwner, ref.MROwner, "the host launched the TD with another MROWNER")
	r.hexRule("mr_owner_config", c.MROwnerConfig, ref.MROwnerConfig, "the host launched the TD with another MROWNERCONFIG")
	r.oneOf("mr_seam", c.MRSEAM, ref.MRSEAM, true, "the machine runs another TDX module")
	r.oneOf("mr_signer_seam", c.MRSignerSEAM, nil, false, "the TDX module is not signed by Intel")
	r.oneOf("seam_attributes", c.SEAMAttributes, nil, false, "the TDX module runs with unknown attributes")
	if len(c.MRServiceTD) > 0 {
		r.oneOf("mr_service_td", c.MRServiceTD, nil, ref.AllowMigration, "a service TD is bound to this TD")
	}
	r.tdxTCB(c, ref, at)
}

// knownTDAttributes are the bits whose meaning these rules cover.
const knownTDAttributes = TDDebug | TDSEPTVEDisable | TDMigratable | TDPKS | TDKL | TDPerfMon

func (r *rules) tdxAttributes(c *TDXClaims, ref *kbs.TDXRules) {
	a := c.TDAttributes
	r.flag("debug", a&TDDebug != 0, ref.AllowDebug, "the host may read and write this TD's memory: launch it without ATTRIBUTES.DEBUG")
	r.flag("migratable", a&TDMigratable != 0, ref.AllowMigration, "a service TD may take this TD's memory away")
	r.flag("perfmon", a&TDPerfMon != 0, ref.AllowPerfMon, "the TD uses the performance monitor, which leaks")
	if ref.RequireSEPTVEDisable {
		set := a&TDSEPTVEDisable != 0
		r.add("sept_ve_disable", set, "on", onOff(set), "the host can inject exceptions by removing pages: launch the TD with SEPT_VE_DISABLE")
	}
	known := uint64(knownTDAttributes)
	r.add("td_attributes", a&^known == 0, fmt.Sprintf("no bits but %016x", known), fmt.Sprintf("%016x", a),
		"unknown attributes are set: an Intel TDX module newer than this program, or a debug one")
	if ref.XFAM == "" {
		r.add("xfam", c.XFAM != 0, "any", fmt.Sprintf("%016x", c.XFAM), "the TD has no extended features at all")
		return
	}
	mask, ok := uint64Of(ref.XFAM)
	r.add("xfam", ok && c.XFAM&^mask == 0 && c.XFAM != 0, "no bits but "+ref.XFAM, fmt.Sprintf("%016x", c.XFAM),
		"the TD runs with processor features that are not allowed")
}

func uint64Of(s string) (v uint64, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != 8 {
		return 0, false
	}
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v, true
}

// tdxRTMRs wants 0 to 2 registered, since they carry kernel and initrd; 3 is
// the guest's own and must be untouched unless registered.
func (r *rules) tdxRTMRs(c *TDXClaims, ref *kbs.TDXRules) {
	for i, got := range c.RTMRs {
		name := fmt.Sprintf("rtmr%d", i)
		want, given := ref.RTMRs[fmt.Sprint(i)]
		if want == "" && (given || i < 3) {
			r.add(name, false, "a registered value", got.String(), "RTMR 0 to 2 carry kernel and initrd: register them, with --rtmr "+fmt.Sprint(i)+"=HEX")
			continue
		}
		r.hexRule(name, got, want, "what the TD booted is not what was registered")
	}
	for name := range ref.RTMRs {
		if !slices.Contains([]string{"0", "1", "2", "3"}, name) {
			r.add("rtmr", false, "RTMR 0 to 3", name, "the registration names a register that does not exist")
		}
	}
}

// predicted tells the owner which registers were computed and nobody has seen on
// hardware: where one differs, the prediction may be wrong, and not the machine.
// It decides nothing.
func (r *rules) predicted(launched kbs.LaunchDigest, ref kbs.ReferenceValues) {
	for _, m := range ref.Measurements {
		if m.Predicted != "" && m.LaunchDigest == launched {
			r.add("predicted", true, "registers that were computed and not yet seen on hardware", strings.ReplaceAll(m.Predicted, ",", ", "), "")
			return
		}
	}
}

// neverAccepted are statuses that no registration can allow.
func neverAccepted(status string) bool { return status == "" || status == "Revoked" }

func (r *rules) tdxTCB(c *TDXClaims, ref *kbs.TDXRules, at time.Time) {
	accepted := append([]string{UpToDate}, ref.TCBStatus...)
	pass := slices.Contains(accepted, c.TCBStatus) && !neverAccepted(c.TCBStatus)
	got := fmt.Sprintf("%s (platform %s, module %s, quoting enclave %s)", c.TCBStatus, c.PlatformTCBStatus, c.ModuleTCBStatus, c.QETCBStatus)
	if len(c.TCBShort) > 0 {
		got += ": " + strings.Join(c.TCBShort, ", ")
	}
	r.add("tcb_status", pass, strings.Join(accepted, " or "), got,
		"the machine's firmware is not current: see Intel's advisories, then update it or allow this status")
	var open []string
	for _, a := range c.Advisories {
		if _, allowed := advisory.LeaveFor(ref.AllowAdvisories, a, at); c.TCBStatus != UpToDate && !allowed {
			open = append(open, a)
		}
	}
	r.add("advisories", len(open) == 0, "none but: "+strings.Join(ref.AllowAdvisories, ", "), strings.Join(c.Advisories, ", "),
		"these advisories apply to the machine: "+strings.Join(open, ", "))
	if n := ref.MinimumTCBEvaluation; n > 0 {
		r.add("minimum_tcb_evaluation", c.TCBEvaluation >= n, fmt.Sprintf("at least %d", n), fmt.Sprint(c.TCBEvaluation),
			"the collateral is of an older evaluation: fetch newer, with `ccrun certs fetch --update early`")
	}
	if len(ref.MachineIDs) > 0 {
		known := strings.Trim(c.PPID, "0") != "" && slices.ContainsFunc(ref.MachineIDs, func(s string) bool { return strings.EqualFold(s, c.PPID) })
		r.add("machine_id", known, strings.Join(ref.MachineIDs, " or "), c.PPID, "this machine is not on the list")
	}
	if ref.MinimumTEETCB != "" {
		r.add("minimum_tee_tcb", reaches(c.TEETCBSVN, ref.MinimumTEETCB), "at least "+ref.MinimumTEETCB, c.TEETCBSVN.String(),
			"the TDX module is too old")
	}
}

func reaches(got Hex, floor string) bool {
	want, err := hex.DecodeString(floor)
	if err != nil || len(want) != len(got) {
		return false
	}
	for i := range want {
		if got[i] < want[i] {
			return false
		}
	}
	return true
}

// eventLog wants a log that came along to replay to the quote's RTMRs, all
// four. It adds nothing to what these prove, but explains them: an owner must
// not be shown the events of another boot.
func (r *rules) eventLog(c *TDXClaims) {
	l := c.EventLog
	if l == nil {
		return
	}
	if l.Problem != "" {
		r.add("event_log", false, "a TCG crypto agile event log with SHA-384 digests", l.Problem,
			"send the data of the ACPI table CCEL as the firmware left it, or no event log")
		return
	}
	for i, quoted := range c.RTMRs {
		if len(quoted) != len(kbs.Digest{}) || !slices.Equal(l.RTMRs[i], quoted) {
			r.add("event_log", false, fmt.Sprintf("RTMR%d %v as quoted", i, quoted), fmt.Sprintf("RTMR%d %v after replay", i, l.RTMRs[i]),
				fmt.Sprintf("the event log is of another boot, altered, or lacks what was extended into RTMR%d later: send one taken with the quote, or none", i))
			return
		}
	}
	r.add("event_log", true, "a log that replays to the quoted RTMRs", fmt.Sprintf("%d events that do", l.Count), "")
}
