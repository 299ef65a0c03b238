package main

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog/eventlogtest"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
	"github.com/ccrun/ccrun/krun/measure"
)

// ovmfFiles writes firmware for both TEEs, a kernel with EFI stub and an initrd.
func ovmfFiles(t *testing.T) (fd, kernel, initrd string) {
	t.Helper()
	dir := t.TempDir()
	spec := ovmftest.AmdSev()
	spec.TDX = ovmftest.TDVF().TDX
	spec.Volume = append(spec.Volume, ovmftest.TDDriver()...)
	pe := make([]byte, 0x1000)
	le := binary.LittleEndian
	copy(pe, "MZ")
	pe[0x3c] = 0x40
	copy(pe[0x40:], "PE\x00\x00")
	le.PutUint16(pe[0x58:], 0x20b)
	le.PutUint32(pe[0x58+60:], 0x400)
	le.PutUint32(pe[0x58+108:], 6)
	files := map[string][]byte{"OVMF.fd": spec.Build(), "vmlinuz": pe, "initrd": []byte("initrd")}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "OVMF.fd"), filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd")
}

func TestMeasureQEMUSNP(t *testing.T) {
	fd, kernel, initrd := ovmfFiles(t)
	base := []string{"measure", "--vmm", "qemu", "--tee", "snp", "--firmware", fd, "--cpus", "2", "--kernel", kernel, "--append", "console=ttyS0 " + measure.StopsACPI}
	full := append(base[:len(base):len(base)], "--initrd", initrd)
	code, out := command(t, append(full, "--format", "json")...)
	var m measurements
	if err := json.Unmarshal([]byte(out), &m); err != nil || code != 0 || len(m.Results) != 1 || len(m.Results[0].Regions) != 10 || m.Firmware.Kind != "ovmf" {
		t.Fatalf("status %d, %v, %s", code, err, out)
	}
	_, plain := command(t, full...)
	if plain != m.Results[0].Digest.String()+"\n" {
		t.Errorf("%q, want %v", plain, m.Results[0].Digest)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{full, 0, "has the expected measurement"},
		{base, 3, "firmware, kernel or initrd differ"}, // an initrd that is not given cannot be found
		{append(full[:len(full):len(full)], "--vcpu-type", "EPYC-Milan"), 3, "CPU model (EPYC)"},
		{append(full[:len(full):len(full)], "--guest-features", "0x21"), 3, "guest features (0x1)"},
		{append(full[:len(full):len(full)], "--cpus", "5"), 3, "differs in cpus: the Evidence is of profile qemu-snp, 2 vCPUs"},
		{append(full[:len(full):len(full)], "--memory", "7g"), 0, "has the expected measurement"},
	} {
		report := make([]byte, 1184)
		copy(report[0x90:], m.Results[0].Digest[:])
		file := filepath.Join(t.TempDir(), "report.bin")
		if err := os.WriteFile(file, report, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out := command(t, append(c.args[:len(c.args):len(c.args)], "--against", file)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%v: status %d, %q, want %d, %q", c.args[12:], code, out, c.code, c.want)
		}
	}
}

// TestMeasureACPI: whoever allows the host's code gets the digest, a word in the
// JSON, and is told.
// TestMeasureComposed: of the directory that hosts have, with --vmm qemu and without.
func TestMeasureComposed(t *testing.T) {
	fd, kernel, _ := ovmfFiles(t)
	dir, initrd := filepath.Join(t.TempDir(), "fw"), filepath.Join(t.TempDir(), "initrd")
	b, err := firmware.WriteDir(dir, firmware.Sample{Kernel: kernel, OVMF: fd, CPU: "EPYC-v4", Cmdline: "quiet " + measure.StopsACPI})
	if err != nil || os.WriteFile(initrd, make([]byte, 4096), 0o600) != nil {
		t.Fatal(err)
	}
	in, err := measure.FromBundle(b, make([]byte, 4096))
	if err != nil {
		t.Fatal(err)
	}
	want, err := measure.Launch(measure.QEMUSNP, in, measure.Shape{CPUs: 2, MemoryMiB: 2048})
	if err != nil {
		t.Fatal(err)
	}
	base := []string{"measure", "--tee", "snp", "--firmware", dir, "--cpus", "2", "--initrd", initrd}
	for _, more := range [][]string{nil, {"--vmm", "qemu"}} {
		if code, out := command(t, append(base[:len(base):len(base)], more...)...); code != 0 || out != want.Digest.String()+"\n" {
			t.Errorf("%q: status %d, %q, expected %s", more, code, out, want.Digest)
		}
	}
	if code, out := command(t, append(base, "--vmm", "qemu", "--kernel", kernel)...); code != 2 || out != "" {
		t.Errorf("a kernel besides the directory's: status %d, %s", code, out)
	}
}

func TestMeasureACPI(t *testing.T) {
	fd, kernel, initrd := ovmfFiles(t)
	args := []string{"measure", "--vmm", "qemu", "--tee", "snp", "--firmware", fd, "--kernel", kernel, "--initrd", initrd, "--format", "json", "--append"}
	for _, c := range []struct {
		line string
		more []string
		want kbs.ACPI
	}{
		{"quiet " + measure.StopsACPI, nil, kbs.ACPIOff}, {"quiet", []string{"--allow-acpi"}, kbs.ACPIAllowed},
	} {
		code, out := command(t, append(append(args[:len(args):len(args)], c.line), c.more...)...)
		var m measurements
		if err := json.Unmarshal([]byte(out), &m); err != nil || code != 0 || len(m.Results) != 1 || m.Results[0].ACPI != c.want {
			t.Errorf("%q %v: status %d, %v, %s", c.line, c.more, code, err, out)
		}
	}
}

func TestMeasureQEMUTDX(t *testing.T) {
	fd, kernel, initrd := ovmfFiles(t)
	full := []string{"measure", "--vmm", "qemu", "--tee", "tdx", "--firmware", fd, "--cpus", "2", "--kernel", kernel, "--initrd", initrd, "--append", "quiet"}
	code, out := command(t, append(full, "--format", "json", "--profile", "qemu-tdx")...)
	var m measurements
	if err := json.Unmarshal([]byte(out), &m); err != nil || code != 0 || len(m.Results) != 1 || len(m.Results[0].RTMRs) != 2 {
		t.Fatalf("status %d, %v, %s", code, err, out)
	}
	r := m.Results[0]
	_, plain := command(t, full...)
	if want := r.Digest.String() + "\n"; plain != want {
		t.Errorf("%q, want %q", plain, want)
	}
	code, out = command(t, append(full, "--format", "json")...)
	var all measurements
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 || len(all.Results) != 2 || len(all.Skipped) != 2 ||
		!strings.Contains(all.Skipped["qemu-tdx-2024"], "setup header") {
		t.Errorf("all profiles: status %d, %v, %v", code, err, all.Skipped)
	}
	quote := make([]byte, 48+584+10)
	binary.LittleEndian.PutUint16(quote, 4)
	binary.LittleEndian.PutUint32(quote[4:], 0x81)
	copy(quote[48+136:], r.Digest[:])
	for i, d := range r.RTMRs {
		copy(quote[48+328+48*i:], d[:])
	}
	file := filepath.Join(t.TempDir(), "quote.bin")
	if err := os.WriteFile(file, quote, 0o600); err != nil {
		t.Fatal(err)
	}
	code, out = command(t, append(full, "--against", file)...)
	if code != 0 || !strings.Contains(out, "has the expected measurement; not checked: RTMR0 (it needs --event-log)") {
		t.Errorf("status %d, %q", code, out)
	}
	code, out = command(t, append(full[:len(full)-1:len(full)-1], "other", "--against", file)...)
	if code != 3 || !strings.Contains(out, "nothing explains RTMR2 (command line or initrd)") {
		t.Errorf("another command line: status %d, %q", code, out)
	}
}

// TestMeasureQEMUEventLog: a log of another machine is refused by name.
func TestMeasureQEMUEventLog(t *testing.T) {
	fd, _, _ := ovmfFiles(t)
	file := filepath.Join(t.TempDir(), "CCEL")
	b := eventlogtest.Build([]eventlog.Event{{Register: 0, Type: eventlog.HandoffTables2, Digest: kbs.Sum384(nil)}})
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := command(t, "measure", "--vmm", "qemu", "--tee", "tdx", "--firmware", fd, "--event-log", file); code != 1 || out != "" {
		t.Errorf("status %d, %q", code, out)
	}
}

func TestMeasureQEMURefuses(t *testing.T) {
	fd, kernel, initrd := ovmfFiles(t)
	lib, _ := testFirmware(t)
	for _, args := range [][]string{
		{"--vmm", "xen"}, {"--vmm", "qemu"}, {"--vmm", "qemu", "--firmware", lib}, {"--vmm", "qemu", "--firmware", fd, "--tee", "sample"},
		{"--vmm", "qemu", "--firmware", fd, "--initrd", initrd}, {"--vmm", "qemu", "--firmware", fd, "--vcpu-type", "host"},
		{"--vmm", "qemu", "--firmware", fd, "--guest-features", "0"}, {"--vmm", "qemu", "--firmware", fd, "--event-log", initrd},
		{"--vmm", "qemu", "--firmware", fd, "--tee", "tdx", "--vcpu-type", "EPYC"}, {"--vmm", "qemu", "--firmware", fd, "--tee", "tdx", "--event-log", initrd},
		{"--vmm", "qemu", "--firmware", fd, "--tee", "tdx", "--kernel", kernel}, {"--vmm", "qemu", "--firmware", fd, "--profile", "sev"},
		{"--vmm", "qemu", "--firmware", fd, "--profile", "qemu-tdx"}, {"--vmm", "qemu", "--firmware", fd, "--cpus", "513"},
		{"--vmm", "qemu", "--firmware", fd, "--kernel", kernel, "--append", "console=ttyS0"}, // the host's ACPI code would run
		{"--vmm", "qemu", "--firmware", fd, "--kernel", kernel, "--append", measure.StopsACPI, "--allow-acpi"}, {"--vmm", "qemu", "--firmware", fd, "--allow-acpi"},
		{"--vmm", "qemu", "--firmware", fd, "--tee", "tdx", "--allow-acpi"}, {"--firmware", lib, "--allow-acpi"},
		{"--vmm", "krun", "--firmware", lib, "--kernel", kernel}, {"--firmware", lib, "--append", "quiet"}, {"--firmware", fd},
	} {
		if code, out := command(t, append([]string{"measure"}, args...)...); code == 0 || out != "" {
			t.Errorf("%v: status %d, %q", args, code, out)
		}
	}
}
