package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
)

// parts writes what firmware is composed of: an OVMF file, a kernel, and the
// modules of one that has all built in.
func parts(t *testing.T, ovmf []byte) (fd, kernel, modules string) {
	t.Helper()
	dir := t.TempDir()
	builtin := ""
	for _, tee := range []kbs.TEE{kbs.SNP, kbs.TDX} {
		m, err := firmware.GuestModules(dir, tee)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range append([][]string{m.Always}, m.Images["btrfs"], m.Images["ext4"], m.Images["erofs"]) {
			for _, name := range list {
				builtin += "kernel/" + name + ".ko\n"
			}
		}
	}
	for name, b := range map[string][]byte{"OVMF.fd": ovmf, "vmlinuz": []byte("kernel"), "modules/modules.builtin": []byte(builtin), "modules/other.ko": nil} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "OVMF.fd"), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "modules")
}

func TestFirmwareCompose(t *testing.T) {
	t.Setenv("PATH", "/nonexistent") // no QEMU to try the kernel with
	fd, kernel, modules := parts(t, ovmftest.AmdSev().Build())
	compose := func(out string, more ...string) (int, string) {
		return command(t, append([]string{"firmware", "compose", "--ovmf", fd, "--kernel", kernel, "--modules", modules, "--output", out}, more...)...)
	}
	one, two := filepath.Join(t.TempDir(), "fw"), filepath.Join(t.TempDir(), "fw")
	code, text := compose(one)
	if code != 0 || !strings.HasPrefix(text, one+"\nsha256  ") {
		t.Fatalf("status %d: %s", code, text)
	}
	if code, again := compose(two); code != 0 || strings.TrimPrefix(again, two) != strings.TrimPrefix(text, one) {
		t.Errorf("not the same a second time: %s and %s", text, again)
	}
	code, out := command(t, "firmware", "inspect", "--format", "json", one)
	var v firmwareParts
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 || v.Kind != firmware.KindOVMF || v.CPU != "EPYC-v4" ||
		v.OVMF == nil || !v.OVMF.SNP || !v.OVMF.VerifiesKernel || v.OVMF.TDX || v.OVMF.MeasuresTD || !strings.Contains(v.Cmdline, "initcall_blacklist=acpi_init") {
		t.Errorf("status %d, %v, %s", code, err, out)
	}
	code, out = command(t, "firmware", "inspect", fd)
	if code != 0 || !strings.Contains(out, "snp     yes\ntdx     no\n") {
		t.Errorf("status %d, %s", code, out)
	}
	for name, c := range map[string]struct {
		more []string
		code int
	}{
		"for TDX":       {[]string{"--tee", "tdx"}, 1},
		"simulated":     {[]string{"--tee", "sample"}, 2},
		"CPU":           {[]string{"--cpu", "Opteron"}, 2},
		"CPU of a TD":   {[]string{"--tee", "tdx", "--cpu", "EPYC-v4"}, 2},
		"ACPI runs":     {[]string{"--cmdline", "quiet"}, 1},
		"no modules":    {[]string{"--modules", "/nonexistent"}, 1},
		"no OVMF":       {[]string{"--ovmf", kernel}, 1},
		"more than one": {[]string{"x"}, 2},
	} {
		out := filepath.Join(t.TempDir(), "fw")
		if code, text := compose(out, c.more...); code != c.code {
			t.Errorf("%s: status %d, expected %d: %s", name, code, c.code, text)
		}
		if _, err := os.Stat(filepath.Join(out, firmware.ConfigFile)); err == nil {
			t.Errorf("%s: firmware was written", name)
		}
	}
}

// TestFirmwareComposeChecksOVMF: what would launch and prove nothing.
func TestFirmwareComposeChecksOVMF(t *testing.T) {
	generic, deaf := ovmftest.AmdSev(), ovmftest.TDVF()
	generic.Volume, deaf.Volume = make([]byte, 8192), ovmftest.Verifier()
	for name, c := range map[string]struct {
		ovmf ovmftest.Spec
		tee  string
		want string // of the verdict
	}{
		"generic OVMF": {generic, "snp", "snp     boots, but checks no kernel hashes: of no use"},
		"deaf TDVF":    {deaf, "tdx", "tdx     boots, but extends no RTMRs: of no use"},
	} {
		fd, kernel, modules := parts(t, c.ovmf.Build())
		code, _ := command(t, "firmware", "compose", "--tee", c.tee, "--ovmf", fd, "--kernel", kernel, "--modules", modules, "--output", filepath.Join(t.TempDir(), "fw"))
		if code != 1 {
			t.Errorf("%s: status %d", name, code)
		}
		if _, out := command(t, "firmware", "inspect", fd); !strings.Contains(out, c.want) {
			t.Errorf("%s: %s", name, out)
		}
	}
	fd, kernel, modules := parts(t, ovmftest.TDVF().Build())
	t.Setenv("PATH", "/nonexistent")
	if code, out := command(t, "firmware", "compose", "--tee", "tdx", "--ovmf", fd, "--kernel", kernel, "--modules", modules, "--output", filepath.Join(t.TempDir(), "fw")); code != 0 {
		t.Errorf("TDVF: status %d, %s", code, out)
	}
}
