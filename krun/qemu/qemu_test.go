package qemu

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/luks"
)

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// kernel is a bzImage as far as its PE header is read.
func kernel() []byte {
	pe := make([]byte, 0x1000)
	le := binary.LittleEndian
	copy(pe, "MZ")
	pe[0x3c] = 0x40
	copy(pe[0x40:], "PE\x00\x00")
	le.PutUint16(pe[0x58:], 0x20b)
	le.PutUint32(pe[0x58+60:], 0x400)
	le.PutUint32(pe[0x58+108:], 6)
	return pe
}

// fixture is an image and firmware on disk.
type fixture struct {
	image, firmware string
	digest          string // of the firmware, when the container was created
	identity        []byte
}

func newFixture(t *testing.T, tee kbs.TEE, change func(*krun.Identity)) *fixture {
	t.Helper()
	g, err := luks.NewGeometry("11111111-2222-4333-8444-555555555555", 1<<20, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	id := krun.Identity{Version: krun.IdentityVersion, WorkloadID: "w", TEE: tee, VMM: krun.VMMQEMU,
		Servers:       krun.Servers{URLs: []string{"https://192.0.2.1:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
		Disk:          krun.DiskIdentity{Geometry: g, VolumeKeyDigest: kbs.Digest{1}, Filesystem: "erofs", ImageBytes: (g.TotalBytes()/krun.FooterAlign + 1) * krun.FooterAlign},
		Scratch:       krun.Scratch{Kind: krun.ScratchMemory},
		ProcessDigest: kbs.Digest{2}, Policy: krun.LaunchPolicy{Logs: krun.LogsHost}}
	if change != nil {
		change(&id)
	}
	f := &fixture{image: t.TempDir(), firmware: filepath.Join(t.TempDir(), "fw")}
	if f.identity, err = id.Encode(); err != nil {
		t.Fatal(err)
	}
	segment, err := firmware.IdentitySegment(f.identity)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := firmware.ComposeInitrd(segment)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.image, krun.InitrdFile), initrd)
	write(t, filepath.Join(f.image, krun.DiskFile), make([]byte, 8192))
	config, err := (&krun.TEEConfig{WorkloadID: "w", CPUs: 1, MemoryMiB: 2048, TEE: tee, TEEData: "{}", AttestationURL: "https://a"}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(f.image, krun.TEEConfigFile), config)
	ovmf, cpu := ovmftest.AmdSev(), "EPYC-v4"
	if tee == kbs.TDX {
		ovmf, cpu = ovmftest.TDVF(), ""
	}
	f.compose(t, ovmf, cpu, "quiet "+measure.StopsACPI)
	return f
}

func (f *fixture) compose(t *testing.T, ovmf ovmftest.Spec, cpu, cmdline string) {
	t.Helper()
	in := t.TempDir()
	write(t, filepath.Join(in, "kernel"), kernel())
	write(t, filepath.Join(in, "fd"), ovmf.Build())
	b, err := firmware.WriteDir(f.firmware, firmware.Sample{Kernel: filepath.Join(in, "kernel"), OVMF: filepath.Join(in, "fd"), CPU: cpu, Cmdline: cmdline})
	if err != nil {
		t.Fatal(err)
	}
	f.digest = fmt.Sprintf("%x", b.Digest)
}

func (f *fixture) load(t *testing.T) (*boot, error) {
	t.Helper()
	root, err := os.OpenRoot(f.image)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	b, err := loadBoot(root, &Config{FirmwareDir: f.firmware, FirmwareSHA256: f.digest})
	if err == nil {
		_, err = b.digest()
	}
	return b, err
}

// TestMachineOfTheIdentity: what the machine is launched with is what the build
// registered, and names this image's identity.
func TestMachineOfTheIdentity(t *testing.T) {
	for tee, profile := range map[kbs.TEE]measure.Profile{kbs.SNP: measure.QEMUSNP, kbs.TDX: measure.QEMUTDX} {
		f := newFixture(t, tee, nil)
		b, err := f.load(t)
		if err != nil {
			t.Fatalf("%s: %v", tee, err)
		}
		fw, err := firmware.Load(f.firmware)
		if err != nil {
			t.Fatal(err)
		}
		initrd, err := os.ReadFile(filepath.Join(f.image, krun.InitrdFile))
		if err != nil {
			t.Fatal(err)
		}
		want, err := measure.Registered(tee, fw, initrd, measure.Shape{CPUs: 1, MemoryMiB: 2048}, false)
		got, _ := b.digest()
		if err != nil || len(want) != 1 || want[0].LaunchDigest != got || want[0].Profile != string(profile) {
			t.Errorf("%s: launches %v, registered %+v (%v)", tee, got, want, err)
		}
		switch h := b.hardware("/q").(type) {
		case machine.SNP:
			if tee != kbs.SNP || h.HostData != krun.HostData(f.identity) || h.CPU != "EPYC-v4" || !bytes.Equal(h.OVMF, fw.OVMF.Image) {
				t.Errorf("%s: %+v", tee, h.HostData)
			}
		case machine.TDX:
			if tee != kbs.TDX || h.ConfigID != krun.ConfigID(f.identity) || h.QuoteSocket != "/q" || !bytes.Equal(h.OVMF, fw.OVMF.Image) {
				t.Errorf("%s: %+v", tee, h.ConfigID)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	generic := ovmftest.AmdSev()
	generic.Volume = make([]byte, 8192)
	acpi := "quiet " + measure.StopsACPI
	for name, c := range map[string]struct {
		spoil func(t *testing.T, f *fixture)
		want  string
	}{
		"OVMF that boots any kernel": {func(t *testing.T, f *fixture) { f.compose(t, generic, "EPYC-v4", acpi) }, "no code that compares"},
		"no CPU":                     {func(t *testing.T, f *fixture) { f.compose(t, ovmftest.AmdSev(), "", acpi) }, "CPU"},
		"a TD's firmware":            {func(t *testing.T, f *fixture) { f.compose(t, ovmftest.TDVF(), "EPYC-v4", acpi) }, "no SEV metadata"},
		"the host's ACPI code":       {func(t *testing.T, f *fixture) { f.compose(t, ovmftest.AmdSev(), "EPYC-v4", "quiet") }, "ACPI"},
		"no identity":                {func(t *testing.T, f *fixture) { write(t, filepath.Join(f.image, krun.InitrdFile), make([]byte, 4096)) }, "identity"},
		"empty initrd":               {func(t *testing.T, f *fixture) { write(t, filepath.Join(f.image, krun.InitrdFile), nil) }, "empty"},
		"another TEE's identity": {func(t *testing.T, f *fixture) {
			other := newFixture(t, kbs.TDX, nil)
			b, err := os.ReadFile(filepath.Join(other.image, krun.InitrdFile))
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(f.image, krun.InitrdFile), b)
		}, "for TEE tdx"},
		"libkrun's image": {func(t *testing.T, f *fixture) {
			*f = *newFixture(t, kbs.SNP, func(id *krun.Identity) { id.VMM = "" })
		}, "for VMM"},
		"firmware swapped since the create": {func(t *testing.T, f *fixture) {
			was := f.digest
			f.compose(t, ovmftest.AmdSev(), "EPYC-v4", acpi+" more")
			f.digest = was
		}, "when the container was created"},
		"a file of the firmware swapped": {func(t *testing.T, f *fixture) {
			write(t, filepath.Join(f.firmware, "vmlinuz"), append(kernel(), 0))
		}, "SHA-256"},
		"firmware of another kind": {func(t *testing.T, f *fixture) {
			write(t, filepath.Join(f.firmware, firmware.ConfigFile), []byte(`{"version":1,"kind":"qemu-direct","kernel":"vmlinuz"}`))
		}, "of kind"},
	} {
		f := newFixture(t, kbs.SNP, nil)
		c.spoil(t, f)
		if _, err := f.load(t); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
}

func TestConfig(t *testing.T) {
	good := `{"version":1,"image_dir":"/i","firmware_dir":"/f","firmware_sha256":"0a","qemu":"/q","temp_dir":"/t","read_only":false,"boot_seconds":300}`
	path := filepath.Join(t.TempDir(), "c")
	for _, c := range []struct {
		old, new string
		good     bool
	}{{"", "", true}, {`"version":1`, `"version":2`, false}, {`"/i"`, `""`, false}, {`"/q"`, `""`, false}, {`"0a"`, `""`, false}, {"300", "0", false}, {"300", "-1", false},
		{`"version"`, `"more":1,"version"`, false}, {"300}", `300,"ports":[{"number":0,"protocol":"tcp"}]}`, false}} {
		write(t, path, []byte(strings.Replace(good, c.old, c.new, 1)))
		if _, err := ReadConfig(path); (err == nil) != c.good {
			t.Errorf("%s for %s: %v", c.new, c.old, err)
		}
	}
	if _, err := ReadConfig("/nonexistent"); err == nil {
		t.Error("no configuration accepted")
	}
}
