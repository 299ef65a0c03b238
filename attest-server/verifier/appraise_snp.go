package verifier

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/hint"
)

// snp runs the rules for an SNP report. No rules registered means the strict
// default for each.
func (r *rules) snp(c *SNPClaims, ref *kbs.SNPRules) {
	if ref == nil {
		ref = &kbs.SNPRules{}
	}
	r.snpPolicy(c, ref)
	r.add("vmpl", c.VMPL == ref.VMPL, fmt.Sprint(ref.VMPL), fmt.Sprint(c.VMPL),
		"the report was asked for from another privilege level than the guest's own")
	r.hexRule("host_data", c.HostData, ref.HostData, "the host launched the guest with other HOST_DATA")
	r.snpIDBlock(c, ref)
	r.snpTCB(c, ref)
	r.snpProcessor(c, ref)
	r.snpPlatform(c.PlatformInfo, ref)
	r.snpMitigations(c, ref)
}

func (r *rules) snpPolicy(c *SNPClaims, ref *kbs.SNPRules) {
	p := c.Policy
	r.flag("debug", p.Debug, ref.AllowDebug,
		"the host may read and write this guest's memory: launch it without policy bit 19")
	r.flag("migrate_ma", p.MigrateMA, ref.AllowMigrateMA,
		"a migration agent may take this guest's memory away: launch it without policy bit 18")
	r.flag("cxl", p.CXLAllowed, ref.AllowCXL,
		"the guest's memory may lie on a CXL device: launch it without policy bit 21")
	r.flag("smt", p.SMT, !ref.ForbidSMT, "the policy lets a sibling thread run beside the guest: clear policy bit 16")
	if ref.RequirePageSwapDisable {
		set := p.Bits&PolicyPageSwapDisable != 0
		r.add("page_swap_disable", set, "on", onOff(set), "the host may swap this guest's pages out, and watch how they change: launch it with policy bit 25")
	}
	agent := !c.ReportIDMA.IsZero() && slices.ContainsFunc(c.ReportIDMA, func(b byte) bool { return b != 0xff })
	r.flag("migration_agent", agent, ref.AllowMigrateMA, "the guest has a migration agent")
	if m := ref.MinimumABI; m != nil {
		ok := p.ABIMajor > m.Major || p.ABIMajor == m.Major && p.ABIMinor >= m.Minor
		r.add("abi_minimum", ok, fmt.Sprintf("at least %d.%d", m.Major, m.Minor), fmt.Sprintf("%d.%d", p.ABIMajor, p.ABIMinor),
			"the guest policy admits firmware older than required")
	}
}

// snpIDBlock: an ID block can only narrow what launches. So where no keys are
// registered, any ID block passes, and so does a guest without one.
func (r *rules) snpIDBlock(c *SNPClaims, ref *kbs.SNPRules) {
	r.oneOf("id_key_digest", c.IDKeyDigest, ref.IDKeyDigests, true, "the ID block is signed by another key")
	r.oneOf("author_key_digest", c.AuthorKeyDigest, ref.AuthorKeyDigests, true, "the ID block has another author")
	if n := ref.MinimumGuestSVN; n > 0 {
		r.add("guest_svn", c.GuestSVN >= n, fmt.Sprintf("at least %d", n), fmt.Sprint(c.GuestSVN), "the guest is an old release")
	}
}

func (r *rules) snpTCB(c *SNPClaims, ref *kbs.SNPRules) {
	committed := c.CurrentTCB == c.CommittedTCB && c.Current == c.Committed
	expected := "current firmware and TCB committed"
	if ref.AllowProvisional {
		expected = "committed or provisional"
	}
	r.add("provisional_firmware", committed || ref.AllowProvisional, expected,
		fmt.Sprintf("current %s, %s; committed %s, %s", c.Current, c.CurrentTCB, c.Committed, c.CommittedTCB),
		"the host can still roll this firmware back: it must commit it, or provisional firmware be allowed")
	r.snpMinimum("minimum_tcb", c, ref.MinimumTCB)
	for _, cpuid := range slices.Sorted(maps.Keys(ref.MinimumTCBs)) {
		if cpuid == c.Silicon || c.Silicon == "" && sameLine(cpuid, c.Product) {
			r.snpMinimum("minimum_tcb", c, ref.MinimumTCBs[cpuid])
		}
	}
}

// snpMinimum holds the floor against REPORTED_TCB, which the certificate
// proves, and LAUNCH_TCB: a guest launched on old firmware stays suspect.
func (r *rules) snpMinimum(name string, c *SNPClaims, floor *kbs.SNPTCB) {
	if floor == nil {
		return
	}
	for _, t := range []struct {
		name string
		tcb  kbs.SNPTCB
	}{{"reported", c.ReportedTCB}, {"launch", c.LaunchTCB}} {
		for _, s := range []struct {
			name      string
			got, want uint8
		}{
			{"fmc", t.tcb.FMC, floor.FMC}, {"bootloader", t.tcb.Bootloader, floor.Bootloader}, {"tee", t.tcb.TEE, floor.TEE},
			{"snp", t.tcb.SNP, floor.SNP}, {"microcode", t.tcb.Microcode, floor.Microcode},
		} {
			r.add(name, s.got >= s.want, fmt.Sprintf("%s %s at least %d", t.name, s.name, s.want), fmt.Sprint(s.got),
				"the machine's firmware is too old: it must be updated")
		}
	}
}

// snpNames refuses rules about a product that does not exist: a slip of the
// pen in a deny list would otherwise forbid nothing. The same goes for floors.
func (r *rules) snpNames(c *SNPClaims, ref *kbs.SNPRules) {
	for _, name := range slices.Sorted(maps.Keys(ref.MinimumTCBs)) {
		if err := checkSilicon(name); err != nil {
			r.add("minimum_tcb", false, "floors by silicon", name, err.Error()+": "+hint.Of(err))
		}
	}
	known := append(knownProducts(), c.Product)
	var odd []string
	for _, n := range ref.ForbidProducts {
		if !slices.ContainsFunc(known, func(k string) bool { return strings.EqualFold(k, n) }) {
			odd = append(odd, n)
		}
	}
	if len(odd) > 0 {
		slices.Sort(odd)
		r.add("product_names", false, strings.Join(knownProducts(), ", "), strings.Join(odd, ", "),
			"the registration names a product that does not exist")
	}
}

func (r *rules) snpProcessor(c *SNPClaims, ref *kbs.SNPRules) {
	r.snpNames(c, ref)
	denied := slices.ContainsFunc(ref.ForbidProducts, func(p string) bool { return strings.EqualFold(p, c.Product) })
	r.add("product", c.Product != "" && !denied, "any but: "+strings.Join(ref.ForbidProducts, ", "), c.Product,
		"this line of processors is not accepted")
	signers := ref.Signers
	if len(signers) == 0 {
		signers = []string{VCEK, VLEK}
	}
	r.add("signer", slices.Contains(signers, c.Signer), strings.Join(signers, " or "), c.Signer,
		"the machine's provider uses another kind of endorsement key")
	if len(ref.ChipIDs) == 0 {
		r.add("chip_id", true, "any", c.ChipID.String(), "")
		return
	}
	pass := c.Signer == VCEK && !c.ChipID.IsZero() && slices.ContainsFunc(ref.ChipIDs, func(s string) bool { return sameChip(s, c.ChipID) })
	r.add("chip_id", pass, strings.Join(ref.ChipIDs, " or "), c.ChipID.String(),
		"this machine is not on the list, or its id is not proved by a VCEK")
}

// sameChip accepts an id of 64 bytes, or Turin's 8 with the rest zero.
func sameChip(ref string, chipID Hex) bool {
	if len(ref) == 16 {
		ref += strings.Repeat("0", 112)
	}
	return strings.EqualFold(ref, chipID.String())
}

func (r *rules) snpPlatform(info uint64, ref *kbs.SNPRules) {
	for _, b := range []struct {
		name     string
		required bool
		bit      uint64
		hint     string
	}{
		{"alias_check", ref.RequireAliasCheck, PlatformAliasCheck, "the machine did not check its memory for aliases (BadRAM, AMD-SB-3015): update its firmware"},
		{"ciphertext_hiding", ref.RequireCiphertextHiding, PlatformCiphertextHiding, "the host can watch ciphertext: enable ciphertext hiding"},
		{"ecc", ref.RequireECC, PlatformECC, "the machine runs without ECC memory"},
		{"rapl_disabled", ref.RequireRAPLDisabled, PlatformRAPLDisabled, "the host can measure power: disable RAPL"},
		{"tsme", ref.RequireTSME, PlatformTSME, "the machine runs without TSME"},
		{"iommu_write_safe", ref.RequireIOMMUWriteSafe, PlatformIOMMUWriteSafe, "devices may write to the guest's memory through the IOMMU's buffers (AMD-SB-3016): update the machine's firmware"},
	} {
		set := info&b.bit != 0
		expected := "any"
		if b.required {
			expected = "on"
		}
		r.add("platform_info_"+b.name, set || !b.required, expected, onOff(set), b.hint)
	}
	r.flag("platform_info_smt", info&PlatformSMT != 0, !ref.ForbidPlatformSMT, "sibling threads of the machine are on (StackWarp, AMD-SB-3027): switch SMT off in its firmware")
	r.flag("platform_info_tio", info&PlatformTIO != 0, !ref.ForbidTIO, "trusted I/O is on: devices belong to what the guest trusts")
}

// snpMitigations wants the bits at launch and now: what a mitigation covers may
// have been lost before it came.
func (r *rules) snpMitigations(c *SNPClaims, ref *kbs.SNPRules) {
	if len(ref.RequireMitigations) == 0 {
		return
	}
	short := shortfalls(c, advisory.Floor{MitigationBits: ref.RequireMitigations})
	got := "all"
	if len(short) > 0 {
		got = strings.Join(short, "; ")
	}
	r.add("mitigations", len(short) == 0, fmt.Sprintf("mitigation bits %v at launch and now", ref.RequireMitigations), got,
		"the machine's firmware lacks a mitigation, or had none when the guest was launched: update it, and launch the guest anew")
}
