package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/wrapper"
)

const goodCrun = "crun version 1.28\ncommit: x\n+SYSTEMD +LIBKRUN\n"

// fit is a host on which every check passes, and what makes it so.
type fit struct {
	*Host
	t       *testing.T
	config  string // of the runtime
	snp     bool
	version string            // of crun
	objects []kbs.TEE         // that QEMU makes machines for
	memory  error             // machine.CheckMemory's
	outputs map[string]string // of programs, by name
	env     map[string]string
}

func fitHost(t *testing.T) *fit {
	f := &fit{Host: &Host{Root: t.TempDir()}, t: t, snp: true, version: goodCrun, objects: []kbs.TEE{kbs.SNP, kbs.TDX}, env: map[string]string{}}
	for path, content := range map[string]string{
		"dev/kvm": "", "dev/sev": "", "usr/bin/crun": "", "etc/ccrun/krun.json": "",
		"sys/module/kvm_amd/parameters/sev_snp": "Y\n",
		"sys/fs/cgroup/misc.capacity":           "sev 0\nsev_es 99\n",
		"sys/fs/cgroup/misc.current":            "sev 0\nsev_es 2\n",
		"etc/containers/containers.conf":        "[containers]\n# annotations = [\"krun.use_passt=1\"]\n",
		"usr/lib64/libkrun-sev.so.1":            "",
	} {
		f.write(path, content)
	}
	f.library("lib/libkrunfw-sev.so.5")
	f.write("qemu/usr/bin/qemu-system-x86_64", "")
	f.compose(ovmftest.AmdSev(), "EPYC-v4")
	f.configure(f.path("state"))
	f.outputs = map[string]string{
		"podman --version": "podman version 5.4.2\n", "podman --runtime": "/usr/local/libexec/ccrun/krun\n",
		"/sbin/ldconfig -p": "\tlibkrun-sev.so.1 (libc6) => /lib32/libkrun-sev.so.1\n\tlibkrun-sev.so.1 (libc6,x86-64) => /usr/lib64/libkrun-sev.so.1\n",
	}
	f.Output = func(_ context.Context, name string, arg ...string) (string, error) {
		out, ok := f.outputs[name+" "+arg[0]]
		if !ok {
			return "", errors.New("not installed")
		}
		return out, nil
	}
	f.Getenv = func(name string) string { return f.env[name] }
	f.Ours = func(path string) bool { return path == "/usr/local/libexec/ccrun/krun" }
	f.Clock = func() (int, error) { return unix.TIME_OK, nil }
	f.Server = func(context.Context) error { return nil }
	f.Runtime = f.realRuntime
	return f
}

// realRuntime is the runtime itself, but for the devices of this machine.
func (f *fit) realRuntime() (*wrapper.Wrapper, error) {
	f.write("krun.json", f.config)
	w, err := wrapper.Host(f.path("krun.json"))
	if err != nil {
		return nil, err
	}
	w.KVM, w.SEV, w.CrunDirs, w.Search = f.path("dev/kvm"), f.path("dev/sev"), nil, firmware.Search{}
	yes := func(string) (bool, error) { return true, nil }
	w.QEMU.KVM, w.QEMU.SEV, w.QEMU.SNP, w.QEMU.TDX = "/dev/null", "/dev/zero", yes, yes
	w.QEMU.Memory = func(uint) error { return f.memory }
	w.QEMU.Objects = func(_ context.Context, _, _ string, tee kbs.TEE) error {
		if !slices.Contains(f.objects, tee) {
			return machine.ErrNoObject
		}
		return nil
	}
	w.Version = func(string) (string, error) { return f.version, nil }
	w.SNP = func(kvm string) (bool, error) {
		_, err := os.Stat(kvm)
		return f.snp, err
	}
	return w, nil
}

func (f *fit) write(path, content string) {
	f.t.Helper()
	p := f.path(path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(content), 0o600)); err != nil {
		f.t.Fatal(err)
	}
}

// configure is all that a host has, with the runtime's state in dir.
func (f *fit) configure(dir string) {
	f.config = fmt.Sprintf(`{"crun":%q,"library":%q,"state_dir":%q,"qemu_root":%q,"qemu_firmware":%q,"quote_socket":%q}`, f.path("usr/bin/crun"),
		f.path("lib/libkrunfw-sev.so.5"), dir, f.path("qemu"), f.path("fw"), f.path("q"))
}

// compose makes the firmware of QEMU's machines with that OVMF.
func (f *fit) compose(ovmf ovmftest.Spec, cpu string) {
	f.t.Helper()
	f.write("in/kernel", "kernel")
	f.write("in/fd", string(ovmf.Build()))
	if _, err := firmware.WriteDir(f.path("fw"), firmware.Sample{Kernel: f.path("in/kernel"), OVMF: f.path("in/fd"), CPU: cpu, Cmdline: "quiet"}); err != nil {
		f.t.Fatal(err)
	}
}

// becomeTDX has TDX in place of SEV-SNP, firmware for TDs, and a quote service.
func (f *fit) becomeTDX() {
	f.remove("sys/module/kvm_amd/parameters/sev_snp")
	f.write("sys/module/kvm_intel/parameters/tdx", "Y")
	f.compose(ovmftest.TDVF(), "")
	l, err := net.Listen("unix", f.path("q"))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { l.Close() })
}

func (f *fit) remove(path string) { _ = os.Remove(f.path(path)) }

func (f *fit) library(path string) {
	f.t.Helper()
	fw, err := firmware.FromParts(bytes.Repeat([]byte{1}, firmware.QBootBytes), bytes.Repeat([]byte{2}, 3<<16), 0x1000000, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	lib, err := firmware.BuildLibrary(fw, bytes.Repeat([]byte{3}, 4096))
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(path, string(lib))
}

// installed puts a libkrun of a version where no loader's cache has it.
func (f *fit) installed(dir, version string) {
	f.t.Helper()
	f.remove("usr/lib64/libkrun-sev.so.1")
	f.write(dir+"/libkrun-sev.so."+version, "")
	if err := os.Symlink("libkrun-sev.so."+version, f.path(dir+"/libkrun-sev.so.1")); err != nil {
		f.t.Fatal(err)
	}
}

func TestFitHost(t *testing.T) {
	findings, fit := fitHost(t).Examine(context.Background())
	if !fit || len(findings) != len(checks())-1 { // quotes are a TDX host's
		t.Fatalf("fit host refused: %+v", findings)
	}
	for _, f := range findings {
		if f.Status != OK || f.Fix != "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestEachFaultIsNamed(t *testing.T) {
	for name, c := range map[string]struct {
		check string
		want  Status
		says  string // in what was found or its repair
		spoil func(*fit)
	}{
		"no kvm":            {"kvm", Fail, "no such file", func(f *fit) { f.remove("dev/kvm") }},
		"no qemu":           {"qemu", Warn, "--vmm qemu", func(f *fit) { f.remove("qemu/usr/bin/qemu-system-x86_64") }},
		"qemu old":          {"qemu", Warn, "lacks", func(f *fit) { f.objects = nil }},
		"no firmware of it": {"qemu-firmware", Warn, "compose", func(f *fit) { f.remove("fw/firmware.json") }},
		"generic OVMF": {"qemu-firmware", Warn, "prove nothing", func(f *fit) {
			generic := ovmftest.AmdSev()
			generic.Volume = make([]byte, 8192)
			f.compose(generic, "EPYC-v4")
		}},
		"memory taken":  {"qemu-memory", Warn, "other machines", func(f *fit) { f.memory = machine.ErrMemory }},
		"tdx":           {"tee", Warn, "no initrd", func(f *fit) { f.becomeTDX() }},
		"no sev":        {"tee", Fail, "dev/sev", func(f *fit) { f.remove("dev/sev") }},
		"no snp VMs":    {"tee", Fail, "makes no SNP machines", func(f *fit) { f.snp = false }},
		"no asids":      {"asids", Warn, "BIOS", func(f *fit) { f.remove("sys/fs/cgroup/misc.capacity") }},
		"asids used up": {"asids", Warn, "all 99", func(f *fit) { f.write("sys/fs/cgroup/misc.current", "sev 1\nsev_es 99\n") }},
		"more than all": {"asids", Warn, "all 99", func(f *fit) { f.write("sys/fs/cgroup/misc.current", "sev_es 100\n") }},
		"asids odd":     {"asids", Warn, "lists no", func(f *fit) { f.write("sys/fs/cgroup/misc.capacity", "sev_es max\n") }},
		"crun plain":    {"crun", Fail, "without libkrun", func(f *fit) { f.version = "crun version 1.28\n+SYSTEMD\n" }},
		"crun old":      {"crun", Fail, "expected 1.21", func(f *fit) { f.version = "crun version 1.20\n+LIBKRUN\n" }},
		"crun weak":     {"crun", Warn, "CVE-2026-47766", func(f *fit) { f.version = "crun version 1.27.1\n+LIBKRUN\n" }},
		"crun garbage":  {"crun", Fail, "not crun", func(f *fit) { f.version = "crun" }},
		"crun gone":     {"crun", Fail, "finding crun", func(f *fit) { f.remove("usr/bin/crun") }},
		"no libkrun":    {"libkrun", Fail, "finds no libkrun", func(f *fit) { f.remove("usr/lib64/libkrun-sev.so.1") }},
		"loader looks elsewhere": {"libkrun", Fail, "echo /usr/local/lib64 >/etc/ld.so.conf.d", func(f *fit) {
			f.installed("usr/local/lib64", "1.18.1")
		}},
		"LD_LIBRARY_PATH": {"libkrun", Warn, "echo /opt/krun >", func(f *fit) { f.installed("opt/krun", "1.18.1"); f.env["LD_LIBRARY_PATH"] = ":/none:/opt/krun" }},
		"libkrun old":     {"libkrun", Fail, "1.15", func(f *fit) { f.installed("usr/lib64", "1.15.0") }},
		"libkrun new":     {"libkrun", Warn, "1.20", func(f *fit) { f.installed("usr/lib64", "1.20.0") }},
		"no firmware": {"firmware", Fail, `{"library":`, func(f *fit) {
			f.config = fmt.Sprintf(`{"crun":%q,"state_dir":%q,"qemu_root":%q,"qemu_firmware":%q}`, f.path("usr/bin/crun"), f.path("state"), f.path("qemu"), f.path("fw"))
		}},
		"firmware broken":   {"firmware", Fail, "libkrunfw", func(f *fit) { f.write("lib/libkrunfw-sev.so.5", "\x7fELF junk") }},
		"another's library": {"library", Fail, "mode 0700", func(f *fit) { f.write("state/x", "") }},
		"podman old":        {"podman", Warn, "`ccrun quadlet` do not", func(f *fit) { f.outputs["podman --version"] = "podman version 4.3.1" }},
		"podman odd":        {"podman", Fail, "says", func(f *fit) { f.outputs["podman --version"] = "docker" }},
		"no podman":         {"podman", Fail, "not installed", func(f *fit) { delete(f.outputs, "podman --version") }},
		"stock krun":        {"runtime", Fail, "/usr/bin/krun, which is not", func(f *fit) { f.outputs["podman --runtime"] = "/usr/bin/krun\n" }},
		"no krun":           {"runtime", Fail, "engine.runtimes", func(f *fit) { delete(f.outputs, "podman --runtime") }},
		"passt": {"passt", Fail, "01.conf", func(f *fit) {
			f.write("etc/containers/containers.conf.d/01.conf", "annotations = [\"krun.use_passt=1\"]")
		}},
		"passt of the user": {"passt", Fail, "/own.conf", func(f *fit) {
			f.env["CONTAINERS_CONF"] = "/own.conf"
			f.write("own.conf", "annotations = [\"krun.use_passt=1\"]")
		}},
		"clock off":        {"clock", Warn, "time service", func(f *fit) { f.Clock = func() (int, error) { return unix.TIME_ERROR, nil } }},
		"server away":      {"server", Fail, "firewall", func(f *fit) { f.Server = func(context.Context) error { return errors.New("refused") } }},
		"server not named": {"", OK, "", func(f *fit) { f.Server = nil }},
	} {
		h := fitHost(t)
		c.spoil(h)
		findings, fit := h.Examine(context.Background())
		libkruns := slices.Contains([]string{"tee", "crun", "libkrun", "firmware", "library"}, c.check) && c.want == Fail && name != "crun gone" // which QEMU's take, too
		if fit != (c.want != Fail || libkruns) {
			t.Errorf("%s: fit = %v", name, fit)
		}
		if libkruns {
			c.want = Warn // images for QEMU still run
			without := fitHost(t)
			without.remove("qemu/usr/bin/qemu-system-x86_64")
			c.spoil(without)
			if _, fit := without.Examine(context.Background()); fit {
				t.Errorf("%s, without QEMU: fit", name)
			}
		}
		for _, f := range findings {
			want := OK
			switch {
			case f.Check == c.check:
				want = c.want
			case name == "crun gone" && f.Check == "qemu": // needs a crun, too
				want = Warn
			}
			if f.Status != want || (f.Status != OK) != (f.Fix != "") || f.Check == c.check && !strings.Contains(f.Got+f.Fix, c.says) {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}

// TestTDXHost: with QEMU it is fit, without TDs' needs it is not.
func TestTDXHost(t *testing.T) {
	for name, c := range map[string]struct {
		check, says string
		spoil       func(*fit)
	}{
		"QEMU of SNP":    {"qemu", "lacks", func(f *fit) { f.objects = []kbs.TEE{kbs.SNP} }},
		"no QEMU":        {"qemu", "--vmm qemu", func(f *fit) { f.remove("qemu/usr/bin/qemu-system-x86_64") }},
		"SNP's firmware": {"qemu-firmware", "RTMRs", func(f *fit) { f.compose(deaf(), "") }},
		"no quotes":      {"qemu-quotes", "qgsd", func(f *fit) { f.remove("q") }},
		"no TEE at all":  {"tee", "BIOS", func(f *fit) { f.remove("sys/module/kvm_intel/parameters/tdx") }},
	} {
		h := fitHost(t)
		h.becomeTDX()
		if findings, fit := h.Examine(context.Background()); !fit || len(findings) != len(checks()) {
			t.Fatalf("%+v", findings)
		}
		c.spoil(h)
		findings, fit := h.Examine(context.Background())
		i := slices.IndexFunc(findings, func(f Finding) bool { return f.Check == c.check })
		if fit || i < 0 || findings[i].Status != Fail || !strings.Contains(findings[i].Got+findings[i].Fix, c.says) {
			t.Errorf("%s: fit %v, %+v", name, fit, findings)
		}
	}
}

// deaf is OVMF for TDs that extends nothing.
func deaf() ovmftest.Spec {
	s := ovmftest.TDVF()
	s.Volume = ovmftest.Verifier()
	return s
}

// TestASIDsFree: they are finite, and it is told how many are left, wherever the
// controller is mounted.
func TestASIDsFree(t *testing.T) {
	for name, c := range map[string]struct {
		dir, capacity, current string
		says                   string
	}{
		"some":         {"sys/fs/cgroup", "sev 410\nsev_es 99\n", "sev 7\nsev_es 12\n", "87 of 99 SEV-ES/SNP ASIDs are free"},
		"all":          {"sys/fs/cgroup", "sev_es 99\n", "sev_es 0\n", "99 of 99"},
		"last":         {"sys/fs/cgroup", "sev_es 99\n", "sev_es 98\n", "1 of 99"},
		"hybrid":       {"sys/fs/cgroup/unified", "sev_es 15\n", "sev_es 5\n", "10 of 15"},
		"version 1":    {"sys/fs/cgroup/misc", "sev_es 15\n", "sev_es 5\n", "10 of 15"},
		"not said":     {"sys/fs/cgroup", "sev_es 99\n", "", "does not say how many are free"},
		"none in use":  {"sys/fs/cgroup", "sev_es 99\n", "sev 7\n", "99 of 99"},
		"another name": {"sys/fs/cgroup", "sev 7\nsev_es 99\n", "sev_esx 12\n", "99 of 99"},
	} {
		h := fitHost(t)
		h.remove("sys/fs/cgroup/misc.capacity")
		h.remove("sys/fs/cgroup/misc.current")
		h.write(c.dir+"/misc.capacity", c.capacity)
		if c.current != "" {
			h.write(c.dir+"/misc.current", c.current)
		}
		for _, f := range must(h.Examine(context.Background())) {
			if f.Check == "asids" && (f.Status != OK || !strings.Contains(f.Got, c.says)) {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
}

// TestNoExec: the directory is the runtime's own choice, and its error.
func TestNoExec(t *testing.T) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		m := strings.Fields(line)
		if len(m) < 4 || !strings.Contains(","+m[3]+",", ",noexec,") {
			continue
		}
		h := fitHost(t)
		h.configure(m[1] + "/ccrun-no-such")
		h.remove("qemu/usr/bin/qemu-system-x86_64") // or it were a warning
		for _, f := range must(h.Examine(context.Background())) {
			if f.Check == "library" && (f.Status != Fail || !strings.Contains(f.Got, "noexec") || !strings.Contains(f.Fix, "state_dir")) {
				t.Errorf("%+v", f)
			}
		}
		return
	}
	t.Skip("nothing is mounted noexec here")
}

func must(findings []Finding, _ bool) []Finding { return findings }

// TestBrokenConfig: what cannot be read is one fault, not five.
func TestBrokenConfig(t *testing.T) {
	h := fitHost(t)
	h.config = `{"crun":"relative"}`
	findings, fit := h.Examine(context.Background())
	if fit || findings[0].Status != Fail || !strings.Contains(findings[0].Got, "not an absolute path") {
		t.Errorf("fit %v, %+v", fit, findings[0])
	}
	for _, f := range findings[1:] {
		if f.Status != OK || f.Check == "crun" {
			t.Errorf("%+v", f)
		}
	}
}

// TestLoaderHere: the loader of this machine is asked, not remembered.
func TestLoaderHere(t *testing.T) {
	if _, err := os.Stat(loader); err != nil {
		t.Skip(err)
	}
	h := Local()
	dirs := h.systemDirs(context.Background())
	for _, dir := range dirs {
		if !strings.HasPrefix(dir, "/") || strings.Contains(dir, "local") {
			t.Errorf("system directory %q", dir)
		}
	}
	t.Logf("%q", dirs)
}
