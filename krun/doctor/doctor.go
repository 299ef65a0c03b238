// Package doctor says whether a host can run confidential workloads, and how
// to repair each thing that is missing. It judges what the runtime krun would
// take, by asking package wrapper.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/ccrun/ccrun/hint"
)

// Status of a finding. The zero value counts as a failure.
type Status string

// Finding states: a failed check makes the host unfit, a warning does not.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Finding is the outcome of one check.
type Finding struct {
	Check  string `json:"check"`
	Status Status `json:"status"`
	Got    string `json:"got"`
	Fix    string `json:"fix,omitempty"`
}

// check is one row of the table: what is looked at, and the repair if the
// error has no hint of its own.
type check struct {
	name string
	run  func(*Host, context.Context) (string, error)
	fix  string
	skip func(*Host) bool
	vmm  string // whose images need it; empty: all
}

// The VMMs of images: a host is fit that can run those of one.
const (
	ofLibkrun = "libkrun"
	ofQEMU    = "qemu"
)

// The checks that ask the runtime come after "config", which makes it.
func checks() []check {
	broken := func(h *Host) bool { return h.runtime == nil }
	unnamed := func(h *Host) bool { return h.Server == nil }
	noQEMU := func(h *Host) bool { return broken(h) || h.noQEMU }
	noTDX := func(h *Host) bool { return noQEMU(h) || h.tdx() != nil }
	return []check{
		{"config", (*Host).config, "correct the runtime's configuration", nil, ""},
		{"kvm", (*Host).kvm, "load kvm_amd or kvm_intel and let this user open /dev/kvm", broken, ""},
		{"tee", (*Host).tee, "enable SEV-SNP: kernel 6.11 or later, kvm_amd.sev_snp=1, SMEE and SNP in the BIOS", broken, ofLibkrun},
		{"asids", (*Host).asids, "raise the number of SEV-ES/SNP ASIDs in the BIOS (minimum SEV non-ES ASID)", nil, ""},
		{"crun", (*Host).crun, "install crun 1.28 or later built with --with-libkrun; Debian's is not", broken, ofLibkrun},
		{"libkrun", (*Host).libkrun, "install libkrun 1.16 to 1.19 built with SEV=1 (libkrun-sev.so.1), then run ldconfig", nil, ofLibkrun},
		{"firmware", (*Host).firmware, "install libkrunfw built with SEV=1 (libkrunfw-sev.so.5)", broken, ofLibkrun},
		{"library", (*Host).library, "remove it, or name another state_dir in the runtime's configuration", broken, ofLibkrun},
		{"qemu", (*Host).qemu, "install QEMU 9.1 or later for SEV-SNP (Debian 13), 10.1 or later for TDX", broken, ofQEMU},
		{"qemu-tee", (*Host).qemuTEE, "enable SEV-SNP (kvm_amd.sev_snp=1) or TDX (kvm_intel.tdx=1), in the BIOS, too", noQEMU, ofQEMU},
		{"qemu-firmware", (*Host).qemuFirmware, "make it with `ccrun firmware compose`", noQEMU, ofQEMU},
		{"qemu-quotes", (*Host).quotes, "start Intel's qgsd", noTDX, ofQEMU},
		{"qemu-memory", (*Host).memory, "stop other machines", noQEMU, ofQEMU},
		{"podman", (*Host).podman, "install Podman 4.8 or later", nil, ""},
		{"runtime", (*Host).podmansRuntime, "name ccrun's krun in containers.conf, below [engine.runtimes]: krun = [\"/usr/local/libexec/ccrun/krun\"]", nil, ""},
		{"passt", (*Host).passt, "take krun.use_passt out of containers.conf: it would leave guests without a network", nil, ""},
		{"clock", (*Host).clock, "start a time service: certificates and tokens are judged by this clock", nil, ""},
		{"server", (*Host).server, "check the URL, the firewall and `systemctl status attest-server` there", unnamed, ""},
	}
}

// Examine runs every check and says whether the host is fit: for images of one VMM
// at least. What only the other's lack is a warning.
func (h *Host) Examine(ctx context.Context) (findings []Finding, fit bool) {
	failed, vmms := map[string]bool{}, []string(nil)
	for _, c := range checks() {
		if c.skip != nil && c.skip(h) {
			continue
		}
		f := c.examine(h, ctx)
		failed[c.vmm] = failed[c.vmm] || f.Status == Fail
		findings, vmms = append(findings, f), append(vmms, c.vmm)
	}
	main, other := ofLibkrun, ofQEMU
	if h.snp() != nil && h.tdx() == nil { // where libkrun's machines prove nothing
		main, other = ofQEMU, ofLibkrun
	}
	for i, f := range findings {
		if f.Status == Fail && (vmms[i] == other || vmms[i] == main && !failed[other] && h.runtime != nil) {
			findings[i].Status = Warn
		}
	}
	return findings, !failed[""] && !(failed[main] && failed[other])
}

func (c check) examine(h *Host, ctx context.Context) Finding {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	got, err := c.run(h, ctx)
	if err == nil {
		return Finding{Check: c.name, Status: OK, Got: got}
	}
	f := Finding{Check: c.name, Status: Fail, Got: err.Error(), Fix: cmp.Or(hint.Of(err), c.fix)}
	if errors.As(err, new(warning)) {
		f.Status = Warn
	}
	return f
}
