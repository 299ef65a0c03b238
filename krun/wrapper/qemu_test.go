package wrapper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/qemu"
)

// qemuHostOf is a host with all that an image for QEMU takes, and such an image.
func qemuHostOf(t *testing.T, tee kbs.TEE) (*host, *Wrapper) {
	t.Helper()
	h := newHost(t).workload()
	h.config(`"tee":"snp"`, `"tee":"`+string(tee)+`"`)
	in, fw := t.TempDir(), filepath.Join(h.dir, "fw")
	h.write(filepath.Join(in, "kernel"), []byte("kernel"))
	h.write(filepath.Join(in, "fd"), ovmftest.AmdSev().Build())
	b, err := firmware.WriteDir(fw, firmware.Sample{Kernel: filepath.Join(in, "kernel"), OVMF: filepath.Join(in, "fd"), CPU: "EPYC-v4", Cmdline: "quiet"})
	if err != nil {
		t.Fatal(err)
	}
	h.hint("qemu-"+string(tee), fmt.Sprintf("%x", b.Digest))
	root := filepath.Join(h.dir, "root")
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	h.write(filepath.Join(root, "usr/bin/qemu-system-x86_64"), nil)
	quotes := filepath.Join(h.dir, "qgs", "socket")
	if err := os.Mkdir(filepath.Dir(quotes), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", quotes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	yes := func(string) (bool, error) { return true, nil }
	return h, &Wrapper{KVM: "/dev/null", SEV: "/dev/zero", SNP: yes, Stdin: os.Stdin, Version: func(string) (string, error) { return goodVersion, nil },
		QEMU: QEMU{KVM: "/dev/null", SEV: "/dev/zero", SNP: yes, TDX: yes, Memory: func(uint) error { return nil },
			Objects: func(_ context.Context, in, path string, want kbs.TEE) error {
				if in != root || path != "/usr/bin/qemu-system-x86_64" || want != tee {
					t.Errorf("asked %s in %s for %s", path, in, want)
				}
				return nil
			},
			Binary: "/usr/bin/ccrun", Root: root, Firmware: fw, Quotes: quotes, Stdin: os.Stdin}}
}

func (h *host) hint(profile, firmware string) {
	h.t.Helper()
	b, err := krun.Hints{Firmware: firmware, Profile: profile, Ports: []string{"80/tcp"}}.Encode()
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(filepath.Join(h.rootfs, krun.HintsFile), b)
}

// planned is what w makes of the container.
func (h *host) planned(w *Wrapper) (plan, *crun.Spec, *qemu.Config, error) {
	h.t.Helper()
	c, err := crun.Parse(append([]string{"krun"}, h.create()...))
	if err != nil {
		h.t.Fatal(err)
	}
	p, err := w.prepare(c, "/usr/bin/crun")
	if err != nil || p.config == "" {
		return p, nil, nil, err
	}
	c.Config = p.config
	s, err := c.Open()
	if err != nil {
		h.t.Fatal(err)
	}
	var m qemu.Config
	raw, err := os.ReadFile(filepath.Join(h.bundle, qemuConfigFile))
	if err != nil || json.Unmarshal(raw, &m) != nil {
		h.t.Fatalf("monitor's configuration %s (%v)", raw, err)
	}
	return p, s, &m, nil
}

func TestImageForQEMU(t *testing.T) {
	for tee, nodes := range map[kbs.TEE][]string{kbs.SNP: {"/dev/kvm", "/dev/sev"}, kbs.TDX: {"/dev/kvm"}} {
		h, w := qemuHostOf(t, tee)
		before, err := os.ReadFile(filepath.Join(h.bundle, "config.json"))
		if err != nil {
			t.Fatal(err)
		}
		p, s, m, err := h.planned(w)
		if err != nil || !p.plain || p.library != "" || s == nil {
			t.Fatalf("%s: plan %+v, %v", tee, p, err)
		}
		if now, _ := os.ReadFile(filepath.Join(h.bundle, "config.json")); string(now) != string(before) {
			t.Errorf("%s: Podman's own specification was changed, which exec looks at", tee)
		}
		var devices []string
		for _, d := range s.Linux.Devices {
			devices = append(devices, d.Path)
		}
		if !slices.Equal(devices, nodes) {
			t.Errorf("%s: devices %q, expected %q", tee, devices, nodes)
		}
		if want := []string{"/.ccrun/ccrun", "vmm", "--config", "/.ccrun/vmm.json"}; !slices.Equal(s.Process.Args, want) || !s.Root.Readonly || s.RootFS == h.rootfs {
			t.Errorf("%s: process %q, root %+v", tee, s.Process.Args, s.Root)
		}
		mounts := map[string]string{}
		for _, x := range s.Mounts {
			mounts[x.Destination] = x.Source
		}
		for to, from := range map[string]string{"/.ccrun/ccrun": "/usr/bin/ccrun", "/.ccrun/firmware": w.QEMU.Firmware, "/workload": h.rootfs,
			"/usr/bin/qemu-system-x86_64": filepath.Join(w.QEMU.Root, "usr/bin/qemu-system-x86_64")} {
			if mounts[to] != from {
				t.Errorf("%s: %q is mounted at %s, expected %q", tee, mounts[to], to, from)
			}
		}
		want := map[bool][2]string{true: {filepath.Dir(w.QEMU.Quotes), "/.ccrun/quotes/socket"}}[tee == kbs.TDX]
		if got := mounts["/.ccrun/quotes"]; got != want[0] || m.Quotes != want[1] {
			t.Errorf("%s: quotes from %q, told %q", tee, got, m.Quotes)
		}
		if c := s.Process.Capabilities; c != nil && len(c.Effective) > 1 || !s.Process.NoNewPrivileges {
			t.Errorf("%s: capabilities %+v, no_new_privs %v", tee, c, s.Process.NoNewPrivileges)
		}
		if m.BootSeconds != 300 || len(m.Ports) != 1 || m.QEMU != "/usr/bin/qemu-system-x86_64" || len(m.FirmwareSHA256) != 64 || len(m.Warnings) != 0 {
			t.Errorf("%s: monitor's configuration %+v", tee, m)
		}
	}
}

// TestProfileDecides: a host with all of QEMU's runs an image for libkrun under
// libkrun, and one for QEMU without libkrun.
func TestProfileDecides(t *testing.T) {
	h, w := qemuHostOf(t, kbs.SNP)
	h.hint("", fmt.Sprintf("%x", h.fw.Digest))
	w.Library, w.StateDir, w.BootID, w.Now, w.Stderr = h.fw.Path, filepath.Join(h.dir, "state"), "boot", time.Now, os.Stderr
	if p, _, _, err := h.planned(w); err != nil || p.library == "" || p.plain || p.config != "" {
		t.Errorf("libkrun's image: plan %+v, %v", p, err)
	}
}

// TestQuoteServiceStartsAgain: its new socket is where the old one was, which a
// mount of its directory shows, and one of the socket does not. A directory with
// more than the socket is not shown to a container.
func TestQuoteServiceStartsAgain(t *testing.T) {
	h, w := qemuHostOf(t, kbs.TDX)
	dir := filepath.Dir(w.QEMU.Quotes)
	b, inside, told := w.QEMU.quotes()
	if b.Source != dir || inside != "/.ccrun/quotes/socket" || told != "" {
		t.Errorf("%+v, %s, %q", b, inside, told)
	}
	h.write(filepath.Join(dir, "zother"), nil)
	b, inside, told = w.QEMU.quotes()
	if b.Source != w.QEMU.Quotes || inside != "/.ccrun/quotes" || !strings.Contains(told, "directory of its own") {
		t.Errorf("%+v, %s, %q", b, inside, told)
	}
	_ = os.Remove(filepath.Join(dir, "zother"))
	w.QEMU.Quotes = filepath.Join(dir, "link") // which leads out of what is mounted
	_ = os.Remove(filepath.Join(dir, "socket"))
	if err := os.Symlink("/run/qgs", w.QEMU.Quotes); err != nil {
		t.Fatal(err)
	}
	if b, _, told = w.QEMU.quotes(); b.Source != w.QEMU.Quotes || told == "" {
		t.Errorf("%+v, %q", b, told)
	}
}

func TestOtherQEMUFirmwareIsToldOf(t *testing.T) {
	h, w := qemuHostOf(t, kbs.SNP)
	h.hint("qemu-snp", strings.Repeat("0a", 32))
	w.QEMU.BootLimit = time.Minute
	_, _, m, err := h.planned(w)
	if err != nil || len(m.Warnings) != 1 || !strings.Contains(m.Warnings[0], "not the one the image was built for") || m.BootSeconds != 60 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestQEMURefusals: before anything starts, with the next step.
func TestQEMURefusals(t *testing.T) {
	no := func(string) (bool, error) { return false, nil }
	for name, c := range map[string]struct {
		tee   kbs.TEE
		spoil func(h *host, w *Wrapper)
		want  string
	}{
		"no KVM":  {kbs.SNP, func(_ *host, w *Wrapper) { w.QEMU.KVM = "/nonexistent" }, "no /dev/kvm"},
		"no SEV":  {kbs.SNP, func(_ *host, w *Wrapper) { w.QEMU.SEV = "/nonexistent" }, "no /dev/sev"},
		"no SNP":  {kbs.SNP, func(_ *host, w *Wrapper) { w.QEMU.SNP = no }, "no SEV-SNP machines"},
		"no TDX":  {kbs.TDX, func(_ *host, w *Wrapper) { w.QEMU.TDX = no }, "makes no TDs"},
		"no QEMU": {kbs.SNP, func(_ *host, w *Wrapper) { w.QEMU.Root = "/nonexistent" }, "finding QEMU"},
		"QEMU without it": {kbs.SNP, func(_ *host, w *Wrapper) {
			w.QEMU.Objects = func(context.Context, string, string, kbs.TEE) error { return machine.ErrNoObject }
		}, "lacks"},
		"no memory":          {kbs.SNP, func(_ *host, w *Wrapper) { w.QEMU.Memory = func(uint) error { return machine.ErrMemory } }, "not enough memory"},
		"no quotes":          {kbs.TDX, func(_ *host, w *Wrapper) { w.QEMU.Quotes = "/nonexistent" }, "no quote generation service"},
		"no firmware":        {kbs.SNP, func(_ *host, w *Wrapper) { w.QEMU.Firmware = "/nonexistent" }, "no such file"},
		"libkrun's firmware": {kbs.SNP, func(h *host, w *Wrapper) { w.QEMU.Firmware = h.fw.Path }, "of kind"},
		"OVMF cut short": {kbs.SNP, func(h *host, w *Wrapper) {
			h.write(filepath.Join(w.QEMU.Firmware, "OVMF.fd"), ovmftest.AmdSev().Build()[:4096])
		}, "SHA-256"},
		"profile of a TD":     {kbs.SNP, func(h *host, _ *Wrapper) { h.hint("qemu-tdx", strings.Repeat("0a", 32)) }, "is for profile qemu-tdx"},
		"the simulator's TEE": {kbs.SNP, func(h *host, _ *Wrapper) { h.config(`"tee":"snp"`, `"tee":"sample"`) }, "simulated TEE"},
		"a volume over a file": {kbs.SNP, func(h *host, _ *Wrapper) {
			h.writeSpec(`{"root":{"path":"rootfs"},"process":{},"linux":{},"mounts":[{"destination":"/initrd.img"}]}`)
		}, "belongs to the image"},
	} {
		h, w := qemuHostOf(t, c.tee)
		c.spoil(h, w)
		if _, _, _, err := h.planned(w); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		} else if c.want[:2] == "no" && hint.Of(err) == "" && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, machine.ErrMemory) {
			t.Errorf("%s: no next step in %v", name, err)
		}
	}
}
