package workload

import (
	"encoding/hex"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// ComposedFor is the TEE whose composed firmware a machine for tee boots: the
// simulated one plays an SNP machine of QEMU's.
func ComposedFor(tee kbs.TEE) kbs.TEE {
	if tee == kbs.Sample {
		return kbs.SNP
	}
	return tee
}

// checkVMM refuses firmware of another VMM than was asked for.
func (o *MachineOptions) checkVMM(path, kind string) error {
	next := "`ccrun firmware compose --tee " + string(ComposedFor(o.TEE)) + "` makes the firmware of QEMU's machines"
	switch {
	case o.VMM != "" && o.VMM != krun.VMMQEMU:
		return hint.Usagef("VMM %q, expected %s", o.VMM, krun.VMMQEMU)
	case o.VMM == krun.VMMQEMU && kind != firmware.KindOVMF:
		return hint.With(hint.Usagef("firmware %s is of kind %s, which QEMU's machines with a TEE do not boot", path, kind), "%s", next)
	case o.VMM == "" && kind == firmware.KindOVMF && o.TEE != kbs.Sample:
		return hint.With(hint.Usagef("firmware %s is of kind %s, which libkrun does not boot", path, kind), "add --vmm qemu")
	case o.TEE == kbs.TDX && len(o.MoreFirmware) > 0:
		return hint.With(hint.Usagef("several firmwares for a TD, whose registration has one set of RTMRs"), "build an image for each")
	case o.TEE != kbs.TDX && (o.RTMR0.Log != nil || !o.RTMR0.Value.IsZero()):
		return hint.Usagef("RTMR 0 is given for TEE %s, which has none", o.TEE)
	}
	return nil
}

// bind has the registration ask for what QEMU launches the machine with, besides
// the digest of what boots: HOST_DATA or MRCONFIGID, which name the identity once
// more, and a TD's registers.
func (o *MachineOptions) bind(rules kbs.ReferenceValues, fw []*firmware.Bundle, s *sealed) (kbs.ReferenceValues, error) {
	switch {
	case o.VMM != krun.VMMQEMU:
		return rules, nil
	case o.TEE == kbs.SNP || o.TEE == kbs.Sample: // whose machine is an SNP machine less the TEE
		s.profile = krun.HintQEMUSNP
		return bindSNP(rules, s.identity)
	}
	s.profile = krun.HintQEMUTDX
	rtmrs, err := measure.Registers(fw[0], s.initrd, measure.Shape{CPUs: uint(o.CPUs), MemoryMiB: o.MemoryMiB}, o.RTMR0)
	if err != nil {
		return rules, fmt.Errorf("firmware %s: %w", fw[0].Path, err)
	}
	return bindTDX(rules, s.identity, rtmrs)
}

func bindSNP(rules kbs.ReferenceValues, identity []byte) (kbs.ReferenceValues, error) {
	r := kbs.SNPRules{}
	if rules.SNP != nil {
		r = *rules.SNP
	}
	d := krun.HostData(identity)
	if err := only(&r.HostData, "host_data", hex.EncodeToString(d[:])); err != nil {
		return rules, err
	}
	if r.AllowDebug {
		return rules, errDebug()
	}
	rules.SNP = &r
	return rules, nil
}

func bindTDX(rules kbs.ReferenceValues, identity []byte, rtmrs map[string]string) (kbs.ReferenceValues, error) {
	r := kbs.TDXRules{}
	if rules.TDX != nil {
		r = *rules.TDX
	}
	if err := only(&r.MRConfigID, "mr_config_id", krun.ConfigID(identity).String()); err != nil {
		return rules, err
	}
	if r.AllowDebug {
		return rules, errDebug()
	}
	for i, given := range r.RTMRs {
		if given != rtmrs[i] {
			return rules, hint.With(hint.Usagef("the policy has RTMR %s as %.100q, computed is %q", i, given, rtmrs[i]),
				"leave rtmrs out: they are computed; RTMR 0 goes into --event-log or --rtmr")
		}
	}
	r.RTMRs = rtmrs
	rules.TDX = &r
	return rules, nil
}

// only sets what nobody else may have set otherwise.
func only(to *string, name, value string) error {
	if *to != "" && *to != value {
		return hint.With(hint.Usagef("the policy has %s %.100q, but QEMU's machines are launched with the identity's digest there, %s", name, *to, value), "leave it out")
	}
	*to = value
	return nil
}

func errDebug() error {
	return hint.With(hint.Usagef("the policy allows DEBUG, with which the host reads the guest's memory, and no machine of QEMU's is launched with it"), "leave allow_debug out")
}
