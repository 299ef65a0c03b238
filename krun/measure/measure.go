// Package measure computes, offline, what a TEE will report as the launch
// measurement of a krun machine. Everything here is a pure function of the
// bytes that boot and the machine's shape; docs/measurement.md has the
// layouts, their sources, and what no hardware has confirmed.
package measure

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
)

// Profile names how a VMM and its kernel set a machine up, wherever that
// changes the measurement.
type Profile string

// The profiles. A digest says nothing about which one a host has: a
// registration holds all that are acceptable.
const (
	// KrunfwTool is what libkrunfw's krunfw_measurement prints, and libkrun up
	// to 1.11 on AMD's out-of-tree host kernels showed.
	KrunfwTool Profile = "krunfw-tool"
	// Libkrun112 is libkrun 1.12 to 1.15 on a mainline host kernel.
	Libkrun112 Profile = "libkrun-1.12"
	// Libkrun116 is libkrun 1.16 to 1.19.
	Libkrun116 Profile = "libkrun-1.16"
	// LibkrunTDX is libkrun's TDX build: an MRTD over qboot alone.
	LibkrunTDX Profile = "libkrun-tdx"
	// QEMUSNP is QEMU 9.1 and later with OVMF on a mainline host kernel.
	QEMUSNP Profile = "qemu-snp"
	// QEMUTDX is a current stack: QEMU 10.2 and later (or 10.1 with OVMF that
	// reads the kernel from etc/boot/kernel), OVMF of 2025, mainline kernel.
	QEMUTDX Profile = "qemu-tdx"
	// QEMUTDXInitrdLast is QEMUTDX with older OVMF, which puts "initrd=initrd"
	// after the command line.
	QEMUTDXInitrdLast Profile = "qemu-tdx-initrd-last"
	// QEMUTDX2024 is QEMU up to 10.1 with OVMF of 2024: QEMU writes into the
	// kernel's header. QEMUTDX2023 is that on the host kernels that vendors
	// shipped before TDX was upstream.
	QEMUTDX2024 Profile = "qemu-tdx-2024"
	QEMUTDX2023 Profile = "qemu-tdx-2023"
	// QEMUDirect is the simulator's machine.
	QEMUDirect Profile = "qemu-direct"
	// LegacySEV and LegacySEVES are libkrun up to 1.10 on SEV and SEV-ES: a
	// SHA-256, computed by Legacy and not by Launch.
	LegacySEV   Profile = "sev"
	LegacySEVES Profile = "sev-es"
)

// Profiles lists the profiles that a machine with this TEE and firmware kind
// can have, the most likely first. None means that the two do not go together.
func Profiles(tee kbs.TEE, kind string) []Profile {
	switch {
	case tee == kbs.SNP && kind == firmware.KindLibkrun:
		return []Profile{Libkrun116, Libkrun112, KrunfwTool}
	case tee == kbs.TDX && kind == firmware.KindLibkrun:
		return []Profile{LibkrunTDX}
	case tee == kbs.SNP && kind == firmware.KindOVMF:
		return []Profile{QEMUSNP}
	case tee == kbs.TDX && kind == firmware.KindOVMF:
		return []Profile{QEMUTDX, QEMUTDXInitrdLast, QEMUTDX2024, QEMUTDX2023}
	case tee == kbs.Sample && kind == firmware.KindQEMUDirect:
		return []Profile{QEMUDirect}
	case tee == kbs.Sample && kind == firmware.KindOVMF:
		return []Profile{QEMUSNP} // the same machine, less the TEE
	}
	return nil
}

// Limits of a machine's shape.
const (
	MaxCPUs      = 8       // CONFIG_NR_CPUS of libkrunfw's kernels
	MaxOVMFCPUs  = 512     // of a QEMU machine with OVMF
	MinMemoryMiB = 129     // libkrun takes up to 128 for "not set"
	MaxMemoryMiB = 1 << 20 // 1 TiB
	minTDXMiB    = 2048    // libkrun adds a fixed region of 2 GiB
)

// Shape is the machine as far as it is measured.
type Shape struct {
	CPUs      uint `json:"cpus"`
	MemoryMiB uint `json:"memory_mib"`
}

func (s Shape) check(p Profile) error {
	limit := uint(MaxCPUs)
	if _, tdx := stackOf(p); tdx || p == QEMUSNP {
		limit = MaxOVMFCPUs
	}
	switch {
	case s.CPUs < 1 || s.CPUs > limit:
		return hint.Usagef("%d vCPUs, expected 1 to %d", s.CPUs, limit)
	case s.MemoryMiB < MinMemoryMiB || s.MemoryMiB > MaxMemoryMiB:
		return hint.Usagef("%d MiB of memory, expected %d to %d", s.MemoryMiB, MinMemoryMiB, MaxMemoryMiB)
	}
	return nil
}

// Inputs are the bytes that boot, exactly as the VMM loads them.
type Inputs struct {
	QBoot      []byte
	Kernel     []byte
	KernelLoad uint64 // guest physical address; 0 for qemu-direct
	Initrd     []byte
	Cmdline    string // QEMU machines only

	// The rest is for the machines with OVMF, which have no QBoot and may have
	// no kernel.
	OVMF *firmware.OVMF
	// CPUSignature is CPUID leaf 1 EAX of the CPU model (SNP).
	CPUSignature uint32
	// GuestFeatures are the VMSA's SEV_FEATURES (SNP); QEMU's default is 1.
	GuestFeatures uint64
	// AllowACPI lets a QEMU machine be measured whose kernel runs the host's
	// ACPI code; see ErrACPI.
	AllowACPI bool
	// EventLog gives what of RTMR0 cannot be computed (TDX); may be nil.
	EventLog *eventlog.Log
}

// ACPI says of a machine of profile p what its registration must tell of
// the host's ACPI code: nothing where the profile has none or measures it.
func (in *Inputs) ACPI(p Profile) (kbs.ACPI, error) {
	switch {
	case p != QEMUDirect && (p != QEMUSNP || len(in.Kernel) == 0):
		return "", nil
	case stopsACPI(in.Cmdline):
		return kbs.ACPIOff, nil
	case in.AllowACPI:
		return kbs.ACPIAllowed, nil
	}
	return "", hint.With(fmt.Errorf("%w: expected %s on the command line, got %q", ErrACPI, StopsACPI, in.Cmdline),
		"put %s on the command line, or allow the host this code with --allow-acpi", StopsACPI)
}

// FromBundle takes the inputs from firmware and the workload's initrd, padded
// and prefixed as the VMM will see it; with no initrd, the firmware's own.
func FromBundle(b *firmware.Bundle, initrd []byte) (Inputs, error) {
	boot, err := b.BootInitrd(initrd)
	if err != nil {
		return Inputs{}, fmt.Errorf("measuring: %w", err)
	}
	return inputs(b, boot)
}

// inputs are those of a machine that boots that initrd.
func inputs(b *firmware.Bundle, boot []byte) (in Inputs, err error) {
	in = Inputs{QBoot: b.QBoot, Kernel: b.Kernel, KernelLoad: b.KernelLoad, Initrd: boot, Cmdline: b.Cmdline, OVMF: b.OVMF}
	if b.OVMF == nil || b.CPU == "" {
		return in, nil
	}
	// As our own command line has them (krun/machine): no features but SNP's.
	in.GuestFeatures = featureSNP
	if in.CPUSignature, err = ParseCPU(b.CPU); err != nil {
		return Inputs{}, fmt.Errorf("firmware %s: %w", b.Path, err)
	}
	return in, nil
}

// featureSNP is the bit of SEV_FEATURES that QEMU sets.
const featureSNP = 1

// Region is one measured range of guest memory.
type Region struct {
	Name      string `json:"name"`
	GPA       uint64 `json:"gpa"`
	SizeBytes uint64 `json:"size_bytes"`
	// Type is the SNP page type, "added" or "extended" for TDX, or "rtmr0" to
	// "rtmr3" for an event, which has no address.
	Type string `json:"type"`
	// SHA384 is of the region's content; absent where the type has none.
	SHA384 *kbs.Digest `json:"sha384,omitempty"`
}

// Result is a launch measurement and what it was computed from.
type Result struct {
	Profile Profile          `json:"profile"`
	Shape                    // of the machine measured
	Digest  kbs.LaunchDigest `json:"digest"`
	// ACPI says what a registration must tell of the host's ACPI code; empty
	// where the profile has none, or measures it.
	ACPI kbs.ACPI `json:"acpi,omitempty"`
	// RTMRs are TDX's runtime registers, as far as the inputs determine them.
	RTMRs   map[int]kbs.Digest `json:"rtmrs,omitempty"`
	Regions []Region           `json:"regions"`
}

// Launch computes the launch digest of one machine, with its regions.
func Launch(p Profile, in Inputs, s Shape) (*Result, error) {
	l, err := Prepare(in)
	if err != nil {
		return nil, err
	}
	return l.Launch(p, s)
}

// StockTDXMRTD is the MRTD of libkrun's stock TDX qboot. It is the same for
// every kernel, initrd and shape, and so proves nothing about a workload: a
// verifier refuses it by name.
const StockTDXMRTD = "01bf925b3be350ba0285f7d57b6cc5c7d187fa8de5365b6a0ab7a78bf1cb1881ea5cfda02f189555df4c778e0720b653"

// ErrProfile reports a profile that Launch does not know.
var ErrProfile = errors.New("unknown profile")

func profiles() []Profile {
	return []Profile{KrunfwTool, Libkrun112, Libkrun116, LibkrunTDX, QEMUSNP, QEMUTDX, QEMUTDXInitrdLast, QEMUTDX2024, QEMUTDX2023,
		QEMUDirect, LegacySEV, LegacySEVES}
}

// ParseProfile reads a profile's name.
func ParseProfile(s string) (Profile, error) {
	p := Profile(s)
	if all := profiles(); !slices.Contains(all, p) {
		return "", fmt.Errorf("profile %q, expected one of %v: %w", s, all, ErrProfile)
	}
	return p, nil
}
