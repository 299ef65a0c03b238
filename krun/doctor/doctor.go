// Package doctor says whether a host can run confidential workloads, and how
// to repair each thing that is missing.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun/crun"
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

// Host is what the checks look at; tests give their own.
type Host struct {
	Root   string // prefix of every path, normally "/"
	Output func(ctx context.Context, name string, arg ...string) (string, error)
	// Clock returns adjtimex(2)'s clock state.
	Clock func() (int, error)
	// Firmware finds the installed libkrunfw-sev library.
	Firmware func() (string, error)
	// Server probes the attestation server; nil when none was named.
	Server func(context.Context) error
}

// Local is this machine.
func Local(firmware func() (string, error)) *Host {
	return &Host{
		Root: "/", Firmware: firmware,
		Output: func(ctx context.Context, name string, arg ...string) (string, error) {
			b, err := exec.CommandContext(ctx, name, arg...).Output()
			return string(b), err
		},
		Clock: func() (int, error) { return unix.Adjtimex(&unix.Timex{}) },
	}
}

// check is one row of the table: what is looked at, and the repair.
type check struct {
	name string
	run  func(*Host, context.Context) (string, error)
	fix  string
	warn bool // a failure is only a warning
}

var errAbsent = errors.New("not there")

func checks() []check {
	return []check{
		{"kvm", (*Host).kvm, "load kvm_amd or kvm_intel and let this user open /dev/kvm", false},
		{"tee", (*Host).tee, "enable SEV-SNP (kernel 6.11+, kvm_amd.sev_snp=1, SMEE/SNP in the BIOS) or TDX (kvm_intel.tdx=1)", false},
		{"asids", (*Host).asids, "raise the number of SEV-ES/SNP ASIDs in the BIOS (minimum SEV non-ES ASID)", true},
		{"crun", (*Host).crun, "install crun 1.21 or later built with --with-libkrun; Debian's is not", false},
		{"libkrun", (*Host).libkrun, "install libkrun 1.16 to 1.19 built with SEV=1 (libkrun-sev.so.1)", false},
		{"firmware", (*Host).firmware, "install libkrunfw built with SEV=1 (libkrunfw-sev.so.5)", false},
		{"podman", (*Host).podman, "install Podman 4.8 or later; older ones have no Quadlet GlobalArgs", false},
		{"passt", (*Host).passt, "install passt for inbound connections under krun.use_passt", true},
		{"clock", (*Host).clock, "start a time service: certificates and tokens are judged by this clock", true},
		{"server", (*Host).server, "check the URL, the firewall and `systemctl status attest-server` there", false},
	}
}

// Examine runs every check and says whether the host is fit.
func (h *Host) Examine(ctx context.Context) (findings []Finding, fit bool) {
	fit = true
	for _, c := range checks() {
		if c.name == "server" && h.Server == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		got, err := c.run(h, ctx)
		cancel()
		f := Finding{Check: c.name, Status: OK, Got: got}
		if err != nil {
			f.Status, f.Got, f.Fix = Fail, err.Error(), c.fix
			if c.warn {
				f.Status = Warn
			}
		}
		fit = fit && f.Status != Fail
		findings = append(findings, f)
	}
	return findings, fit
}

func (h *Host) path(p string) string { return filepath.Join(h.Root, p) }

func (h *Host) read(p string) string {
	b, err := os.ReadFile(h.path(p))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func (h *Host) kvm(context.Context) (string, error) {
	f, err := os.OpenFile(h.path("/dev/kvm"), os.O_RDWR, 0)
	if err != nil {
		return "", err
	}
	return "/dev/kvm", f.Close()
}

func (h *Host) tee(context.Context) (string, error) {
	snp, tdx := h.read("/sys/module/kvm_amd/parameters/sev_snp"), h.read("/sys/module/kvm_intel/parameters/tdx")
	switch {
	case snp == "Y" || snp == "1":
		if _, err := os.Stat(h.path("/dev/sev")); err != nil {
			return "", fmt.Errorf("SEV-SNP is on, but %w", err)
		}
		return "SEV-SNP", nil
	case tdx == "Y" || tdx == "1":
		return "", errors.New("TDX is on, but libkrun measures only the firmware there: no kernel, no initrd")
	}
	return "", errors.New("neither SEV-SNP nor TDX is enabled")
}

func (h *Host) asids(context.Context) (string, error) {
	for line := range strings.Lines(h.read("/sys/fs/cgroup/misc.capacity")) {
		if name, n, _ := strings.Cut(strings.TrimSpace(line), " "); name == "sev_es" && n != "0" {
			return n + " ASIDs", nil
		}
	}
	return "", errors.New("the misc cgroup controller lists no SEV-ES/SNP ASIDs")
}

func (h *Host) crun(ctx context.Context) (string, error) {
	out, err := h.Output(ctx, "crun", "--version")
	if err != nil {
		return "", fmt.Errorf("running crun --version: %w", err)
	}
	version, err := crun.CheckVersion("crun", out)
	if err != nil {
		return "", err
	}
	return "crun " + version + " with libkrun", nil
}

func (h *Host) libkrun(context.Context) (string, error) {
	for _, dir := range []string{"/usr/local/lib64", "/usr/local/lib", "/usr/lib64", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/lib64"} {
		p := filepath.Join(dir, "libkrun-sev.so.1")
		if _, err := os.Stat(h.path(p)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("libkrun-sev.so.1: %w", errAbsent)
}

func (h *Host) firmware(context.Context) (string, error) { return h.Firmware() }

var podmanVersion = regexp.MustCompile(`podman version (\d+)\.(\d+)`)

func (h *Host) podman(ctx context.Context) (string, error) {
	out, err := h.Output(ctx, "podman", "--version")
	if err != nil {
		return "", fmt.Errorf("running podman --version: %w", err)
	}
	m := podmanVersion.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("podman --version says %q", out)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < 4 || major == 4 && minor < 8 {
		return "", fmt.Errorf("podman %d.%d: `podman run` works, Quadlet units do not", major, minor)
	}
	return fmt.Sprintf("podman %d.%d", major, minor), nil
}

func (h *Host) passt(ctx context.Context) (string, error) {
	out, err := h.Output(ctx, "passt", "--version")
	if err != nil {
		return "", fmt.Errorf("passt: %w", errAbsent)
	}
	return strings.SplitN(strings.TrimSpace(out), "\n", 2)[0], nil
}

func (h *Host) clock(context.Context) (string, error) {
	state, err := h.Clock()
	if err != nil {
		return "", err
	}
	if state == unix.TIME_ERROR {
		return "", errors.New("the kernel's clock is not synchronised")
	}
	return "synchronised", nil
}

func (h *Host) server(ctx context.Context) (string, error) {
	if err := h.Server(ctx); err != nil {
		return "", err
	}
	return "answers", nil
}
