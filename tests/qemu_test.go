package tests

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/luks"
)

// qemuOf is a program that runs the QEMU of a root file system of the rig's, which
// has its libraries there.
//
// What a host adds to the command line may name files by /proc/self/fd, and have the
// shell open them.
func qemuOf(t *testing.T, suite string, added ...string) string {
	t.Helper()
	rig := os.Getenv("CCRUN_RIG")
	root := filepath.Join(rig, suite)
	if _, err := os.Stat(filepath.Join(root, "usr/bin/qemu-system-x86_64")); err != nil {
		need(t, err)
	}
	path := filepath.Join(t.TempDir(), "qemu")
	script := fmt.Sprintf("#!/bin/bash\nexec unshare --mount --propagation private sh -c 'mount --bind /proc %[1]s/proc && exec /usr/sbin/chroot %[1]s qemu-system-x86_64 \"$@\"' qemu \"$@\" %[2]s\n",
		root, strings.Join(added, " "))
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestProductionCommandEnds: the command line of a machine with SNP, and of a TD, is
// QEMU's up to the point where the processor must have it. On a machine without KVM
// that is where KVM is opened, and nothing of QEMU's comes before.
func TestProductionCommandEnds(t *testing.T) {
	endToEnd(t)
	if _, err := os.Stat("/dev/kvm"); err == nil {
		t.Skip("this machine has KVM: what QEMU says then depends on its processor")
	}
	image := make([]byte, 4<<20)
	for name, c := range map[string]struct {
		suite string
		tee   kbs.TEE
		h     machine.Hardware
	}{
		"10.0, snp": {"root", kbs.SNP, machine.SNP{OVMF: image, CPU: "EPYC-v4", HostData: [32]byte{1}, CBit: machine.HostCBit()}},
		"11, snp":   {"root-sid", kbs.SNP, machine.SNP{OVMF: image, CPU: "EPYC-v4", HostData: [32]byte{1}, CBit: machine.HostCBit()}},
		"11, tdx":   {"root-sid", kbs.TDX, machine.TDX{OVMF: image, ConfigID: kbs.Digest{1}, QuoteSocket: "/.ccrun/quotes"}},
	} {
		t.Run(name, func(t *testing.T) {
			qemu := qemuOf(t, c.suite)
			if err := machine.CheckObject(t.Context(), "", qemu, c.tee); err != nil {
				t.Fatal(err)
			}
			said := runMachine(t, &machine.Machine{QEMU: qemu, Hardware: c.h, Kernel: []byte("kernel"), Initrd: []byte("initrd"), Cmdline: "quiet",
				Shape: measure.Shape{CPUs: 2, MemoryMiB: 512}})
			lines := strings.Split(strings.TrimSpace(said.console), "\n")
			if len(lines) != 2 || !strings.HasSuffix(lines[0], "-accel kvm: Could not access KVM kernel module: No such file or directory") {
				t.Errorf("QEMU said %q (%v)", lines, said.err)
			}
		})
	}
	if err := machine.CheckObject(t.Context(), "", qemuOf(t, "root"), kbs.TDX); !errors.Is(err, machine.ErrNoObject) {
		t.Errorf("QEMU 10.0 and TDX: %v", err)
	}
}

// ran is what became of a machine.
type ran struct {
	code    int
	err     error
	console string
}

// runMachine runs m with an empty disk. Its console is what QEMU writes to our
// standard error, which is a file meanwhile.
func runMachine(t *testing.T, m *machine.Machine) ran {
	t.Helper()
	dir := t.TempDir()
	var err error
	if m.Disk, err = os.Create(filepath.Join(dir, "disk")); err != nil {
		t.Fatal(err)
	}
	defer m.Disk.Close()
	if err := m.Disk.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	console, err := os.Create(filepath.Join(dir, "console"))
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	m.TempDir, m.Log, m.StopTimeout, m.ThrowAway = "/tmp", slog.New(slog.DiscardHandler), time.Minute, true
	ours := os.Stderr
	os.Stderr = console
	var r ran
	r.code, r.err = m.Run(nil)
	os.Stderr = ours
	b, err := os.ReadFile(console.Name())
	if err != nil {
		t.Fatal(err)
	}
	r.console = string(b)
	return r
}

// TestOVMFBoots: the machine of production, less the TEE's object, boots through
// OVMF's AmdSev build, with the table of hashes where SNP would have it: to the
// agent, which finds no server, also on a host that adds devices, files for the
// firmware, and ACPI tables, whose code does not run. What differs from the table
// does not come so far, and is ended with the reason.
func TestOVMFBoots(t *testing.T) {
	endToEnd(t)
	ovmf := filepath.Join(os.Getenv("CCRUN_RIG"), "OVMF.amdsev.fd")
	if _, err := os.Stat(ovmf); err != nil {
		need(t, err)
	}
	added, letters := hostileParts(t)
	qemu := qemuOf(t, "root-sid", added...)
	in, cpus := ovmfInputs(t, ovmf), []uint{2}
	if soaking() {
		cpus = []uint{1, 2, 4}
	}
	boots := func(in, hashed measure.Inputs, cpus uint, limit time.Duration) ran {
		gpa, page, err := hashed.HashPage()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		r := runMachine(t, &machine.Machine{QEMU: qemu, Kernel: in.Kernel, Initrd: in.Initrd, Cmdline: in.Cmdline, Shape: measure.Shape{CPUs: cpus, MemoryMiB: 512},
			Hardware: machine.Emulated{OVMF: in.OVMF.Image, Hashes: page, HashesGPA: gpa}, BootLimit: limit})
		t.Logf("%d vCPUs: status %d after %.1f s, %v", cpus, r.code, time.Since(began).Seconds(), r.err)
		return r
	}
	var took time.Duration // by the right ones: what takes longer still does not boot
	for _, n := range cpus {
		began := time.Now()
		if r := boots(in, in, n, patience); r.err != nil || r.code == 0 || !strings.Contains(r.console, "ccrun-init") {
			t.Errorf("%d vCPUs: status %d, %v; the console's last words: %q", n, r.code, r.err, r.console[max(0, len(r.console)-500):])
		}
		took = max(took, time.Since(began))
	}
	if b, err := os.ReadFile(letters); err != nil || len(b) != 0 {
		t.Errorf("the host's ACPI code ran: it wrote %q (%v)", b, err)
	}
	for name, change := range map[string]func(*measure.Inputs){
		"kernel":       func(in *measure.Inputs) { in.Kernel = append(bytes.Clone(in.Kernel), 0) },
		"initrd":       func(in *measure.Inputs) { in.Initrd = append(bytes.Clone(in.Initrd), 0) },
		"command line": func(in *measure.Inputs) { in.Cmdline += " x" },
	} {
		if name != "command line" && !soaking() {
			continue
		}
		other := in
		change(&other)
		if r := boots(other, in, 1, max(10*time.Second, took*3/2)); !errors.Is(r.err, machine.ErrBoot) || r.code != machine.ExitFailure || strings.Contains(r.console, "ccrun-init") {
			t.Errorf("another %s: status %d, %v; %q", name, r.code, r.err, r.console)
		}
	}
}

// hostileParts are what a host adds to QEMU's command line, and where the code of its
// ACPI table writes to. An option ROM is not among them: firmware that runs in no TEE
// runs it.
func hostileParts(t *testing.T) (added []string, letters string) {
	t.Helper()
	dir := t.TempDir()
	table, letters := filepath.Join(dir, "table"), filepath.Join(dir, "letters")
	write(t, table, machine.HostileTable())
	write(t, letters, nil)
	return []string{"-acpitable", "file=/proc/self/fd/40",
		"-chardev", "file,id=letters,path=/proc/self/fd/41", "-device", fmt.Sprintf("isa-debugcon,iobase=%#x,chardev=letters", machine.HostilePort),
		"-fw_cfg", "name=opt/ovmf/X-PciMmio64Mb,string=nonsense", "-fw_cfg", "name=opt/org.tianocore/X-Cpuhp-Bugcheck-Override,string=yes",
		"-fw_cfg", "name=opt/com.coreos/config,string=root", "-smbios", "type=11,value=io.systemd.credential:passwd.hashed-password.root=x",
		"-device", "virtio-rng-pci", "-device", "virtio-balloon-pci", "-device", "pvpanic", "-device", "virtio-serial-pci,id=more",
		"-netdev", "user,id=more,restrict=on,net=10.9.9.0/24", "-device", "virtio-net-pci,netdev=more,romfile=",
		"40<" + table, "41>" + letters}, letters
}

// ovmfInputs is what boots: the simulator's kernel and modules, our agent, and an
// identity whose server nobody is.
func ovmfInputs(t *testing.T, ovmf string) measure.Inputs {
	t.Helper()
	fw, err := firmware.Load(os.Getenv("CCRUN_SIM_FIRMWARE"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(ovmf)
	if err != nil {
		t.Fatal(err)
	}
	in, err := measure.FromBundle(fw, agentInitrd(t))
	if err != nil {
		t.Fatal(err)
	}
	if in.OVMF, err = firmware.ParseOVMF(image); err != nil {
		t.Fatal(err)
	}
	return in
}

func agentInitrd(t *testing.T) []byte {
	t.Helper()
	g, err := luks.NewGeometry("11111111-2222-4333-8444-555555555555", 1<<20, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	id := krun.Identity{Version: krun.IdentityVersion, WorkloadID: "w", TEE: kbs.Sample,
		Servers:       krun.Servers{URLs: []string{"https://127.0.0.1:1"}, PinnedKeys: []string{strings.Repeat("ab", 32)}, WaitSeconds: 1},
		Disk:          krun.DiskIdentity{Geometry: g, VolumeKeyDigest: kbs.Digest{1}, Filesystem: "erofs", ImageBytes: (g.TotalBytes()/krun.FooterAlign + 1) * krun.FooterAlign},
		Scratch:       krun.Scratch{Kind: krun.ScratchMemory},
		ProcessDigest: kbs.Digest{2}, Policy: krun.LaunchPolicy{Logs: krun.LogsHost}}
	identity, err := id.Encode()
	if err != nil {
		t.Fatal(err)
	}
	agent, err := os.ReadFile(filepath.Join(binDir(t), "ccrun-init"))
	if err != nil {
		t.Fatal(err)
	}
	first, err := firmware.AgentSegment(agent)
	if err != nil {
		t.Fatal(err)
	}
	second, err := firmware.IdentitySegment(identity)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := firmware.ComposeInitrd(first, second)
	if err != nil {
		t.Fatal(err)
	}
	return initrd
}
