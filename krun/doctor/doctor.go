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
}

// The checks that ask the runtime come after "config", which makes it.
func checks() []check {
	broken := func(h *Host) bool { return h.runtime == nil }
	unnamed := func(h *Host) bool { return h.Server == nil }
	return []check{
		{"config", (*Host).config, "correct the runtime's configuration", nil},
		{"kvm", (*Host).kvm, "load kvm_amd or kvm_intel and let this user open /dev/kvm", broken},
		{"tee", (*Host).tee, "enable SEV-SNP: kernel 6.11 or later, kvm_amd.sev_snp=1, SMEE and SNP in the BIOS", broken},
		{"asids", (*Host).asids, "raise the number of SEV-ES/SNP ASIDs in the BIOS (minimum SEV non-ES ASID)", nil},
		{"crun", (*Host).crun, "install crun 1.28 or later built with --with-libkrun; Debian's is not", broken},
		{"libkrun", (*Host).libkrun, "install libkrun 1.16 to 1.19 built with SEV=1 (libkrun-sev.so.1), then run ldconfig", nil},
		{"firmware", (*Host).firmware, "install libkrunfw built with SEV=1 (libkrunfw-sev.so.5)", broken},
		{"library", (*Host).library, "remove it, or name another state_dir in the runtime's configuration", broken},
		{"podman", (*Host).podman, "install Podman 4.8 or later", nil},
		{"runtime", (*Host).podmansRuntime, "name ccrun's krun in containers.conf, below [engine.runtimes]: krun = [\"/usr/local/libexec/ccrun/krun\"]", nil},
		{"passt", (*Host).passt, "take krun.use_passt out of containers.conf: it would leave guests without a network", nil},
		{"clock", (*Host).clock, "start a time service: certificates and tokens are judged by this clock", nil},
		{"server", (*Host).server, "check the URL, the firewall and `systemctl status attest-server` there", unnamed},
	}
}

// Examine runs every check and says whether the host is fit.
func (h *Host) Examine(ctx context.Context) (findings []Finding, fit bool) {
	fit = true
	for _, c := range checks() {
		if c.skip != nil && c.skip(h) {
			continue
		}
		f := c.examine(h, ctx)
		fit = fit && f.Status != Fail
		findings = append(findings, f)
	}
	return findings, fit
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
