package firmware

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// ko is a kernel module as far as its .modinfo says: a relocatable object
// with that one section.
func ko(t *testing.T, dir, file, depends string) {
	t.Helper()
	cc := gcc(t)
	src := filepath.Join(t.TempDir(), "m.c")
	writeFile(t, src, []byte(`__attribute__((section(".modinfo"), used)) static const char a[] = "license=GPL";
__attribute__((section(".modinfo"), used)) static const char b[] = "depends=`+depends+`";`))
	run(t, cc, "-c", "-o", filepath.Join(dir, file), src)
}

func TestModulesSegment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kernel", "drivers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ko(t, dir, "virtio-blk.ko", "")
	ko(t, dir, "dm-mod.ko", "")
	ko(t, dir, "dm-crypt.ko", "dm-mod")
	ko(t, dir, "dm-integrity.ko", "dm-mod,async_xor")
	ko(t, dir, "async_xor.ko", "")
	ko(t, dir, "loop_a.ko", "loop_b")
	ko(t, dir, "loop_b.ko", "loop_a")
	ko(t, dir, "broken.ko", "missing")
	ko(t, dir, "fs-a.ko", "dm-mod,crc")
	ko(t, dir, "crc.ko", "")
	ko(t, dir, "overlay.ko", "crc")
	if xz, err := exec.LookPath("xz"); err == nil {
		run(t, xz, "--check=crc32", filepath.Join(dir, "dm-mod.ko"))
	}
	root := filepath.Dir(filepath.Dir(dir))
	writeFile(t, filepath.Join(root, "modules.builtin"), []byte("kernel/fs/ext4/ext4.ko\n"))
	b, err := ModulesSegment(root, Modules{Always: []string{"virtio_blk", "dm_crypt", "ext4", "dm-integrity", "dm_crypt"},
		Images: map[string][]string{"b": {"overlay", "dm_mod"}, "a": {"fs_a", "overlay"}, "ext4": {"ext4"}}})
	if err != nil {
		t.Fatal(err)
	}
	_, entries, err := InspectInitrd(b)
	if !errors.Is(err, ErrNoIdentity) || len(b)%4 != 0 {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if e.Mode&typeMask == typeRegular {
			names = append(names, e.Name)
		}
	}
	want := []string{"/lib/modules/virtio_blk.ko", "/lib/modules/dm_mod.ko", "/lib/modules/dm_crypt.ko",
		"/lib/modules/async_xor.ko", "/lib/modules/dm_integrity.ko", "/etc/ccrun/modules",
		"/lib/modules/crc.ko", "/lib/modules/fs_a.ko", "/lib/modules/overlay.ko", "/etc/ccrun/modules.a",
		"/etc/ccrun/modules.b", "/etc/ccrun/modules.ext4"}
	if !slices.Equal(names, want) {
		t.Errorf("modules %v, want %v", names, want)
	}
	if !bytes.Contains(b, []byte("/lib/modules/virtio_blk.ko\n/lib/modules/dm_mod.ko\n/lib/modules/dm_crypt.ko\n/lib/modules/async_xor.ko\n/lib/modules/dm_integrity.ko\n")) {
		t.Error("the list is not in load order")
	}
	for fs, want := range map[string]string{"a": "/lib/modules/crc.ko\n/lib/modules/fs_a.ko\n/lib/modules/overlay.ko\n",
		"b": "/lib/modules/crc.ko\n/lib/modules/overlay.ko\n", "ext4": ""} {
		_, list, ok := strings.Cut(string(b), strings.TrimPrefix(ImageList(fs), "/")+"\x00")
		if list = strings.TrimLeft(list, "\x00"); !ok || !strings.HasPrefix(list, want+"\x00") && !strings.HasPrefix(list, want+"070701") {
			t.Errorf("list for %s is %.80q, expected %q", fs, list, want)
		}
	}
	for _, bad := range []string{"loop_a", "broken", "nothing"} {
		if _, err := ModulesSegment(root, Modules{Always: []string{bad}}); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
	// With an agent and an identity behind it, the whole is one initrd.
	bundle := Bundle{Kind: KindQEMUDirect, Kernel: []byte("k"), InitrdBase: b}
	boot, err := bundle.BootInitrd(testInitrd(t))
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := InspectInitrd(boot); err != nil || id.WorkloadID != "w1" {
		t.Errorf("modules and workload: %v", err)
	}
}

// TestUnsigned: the kernel would spend a quarter of a start on the signatures of
// modules, which the launch measurement covers.
func TestUnsigned(t *testing.T) {
	sign := func(module string, n uint32) []byte {
		b := append([]byte(module), make([]byte, 8)...)
		return append(binary.BigEndian.AppendUint32(b, n), signatureMagic...)
	}
	for signed, want := range map[string]string{
		"module":                         "module",
		string(sign("modulesig", 3)):     "module",
		string(sign("module", 0)):        "module",
		string(sign("", 0)):              "",
		string(sign("module", 6)):        "",
		"module" + signatureMagic + "\n": "module" + signatureMagic + "\n",
	} {
		if got, err := unsigned([]byte(signed)); err != nil || string(got) != want {
			t.Errorf("%q: %q (%v), expected %q", signed, got, err, want)
		}
	}
	for _, bad := range [][]byte{[]byte(signatureMagic), []byte("short" + signatureMagic), sign("module", 7), sign("module", 1<<32-1)} {
		if got, err := unsigned(bad); err == nil {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestFirmwareDirectory(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "k"), noise(6, 10_000))
	b, err := WriteDir(filepath.Join(dir, "fw"), Sample{Kernel: filepath.Join(dir, "k"), Cmdline: "console=ttyS0 quiet"})
	if err != nil {
		t.Fatal(err)
	}
	if b.Kind != KindQEMUDirect || !bytes.Equal(b.Kernel, noise(6, 10_000)) || b.Cmdline != "console=ttyS0 quiet" {
		t.Errorf("%+v", b)
	}
	writeFile(t, filepath.Join(dir, "q"), noise(1, QBootBytes))
	for config, ok := range map[string]bool{
		`{"version":1,"kind":"qemu-direct","kernel":"k"}`:                                               true,
		`{"version":1,"kind":"libkrun","kernel":"k","qboot":"q","kernel_load":16777216}`:                true,
		`{"version":1,"kind":"libkrun","kernel":"k","qboot":"q"}`:                                       false, // no load address
		`{"version":1,"kind":"libkrun","kernel":"k","kernel_load":16777216}`:                            false, // no qboot
		`{"version":1,"kind":"libkrun","kernel":"k","qboot":"q","cmdline":"x","kernel_load":1}`:         false,
		`{"version":2,"kind":"qemu-direct","kernel":"k"}`:                                               false,
		`{"version":1,"kind":"other","kernel":"k"}`:                                                     false,
		`{"version":1,"kind":"qemu-direct","kernel":"k","extra":1}`:                                     false,
		`{"version":1,"kind":"qemu-direct","kernel":"../k"}`:                                            false,
		`{"version":1,"kind":"qemu-direct","kernel":"/etc/hostname"}`:                                   false,
		`{"version":1,"kind":"qemu-direct","kernel":"fw"}`:                                              false,
		`{"version":1,"kind":"qemu-direct","kernel":"none"}`:                                            false,
		`{"version":1,"kind":"qemu-direct","kernel":"k","qboot":"q"}`:                                   false,
		`{"version":1,"kind":"qemu-direct","kernel":"k","cmdline":"a\nb"}`:                              false,
		`{"version":1,"kind":"qemu-direct","kernel":"k","cmdline":"` + strings.Repeat("a", 2048) + `"}`: false,
	} {
		writeFile(t, filepath.Join(dir, ConfigFile), []byte(config))
		if b, err := Load(dir); (err == nil) != ok {
			t.Errorf("%s: %+v (%v)", config, b != nil, err)
		}
	}
}

// TestLooseVmlinux flattens an ELF kernel as bin2cbundle.py does.
func TestLooseVmlinux(t *testing.T) {
	le := binary.LittleEndian
	k := make([]byte, 0x3000)
	copy(k, staticELF()[:64])
	le.PutUint64(k[24:], 0x1000123)
	le.PutUint16(k[56:], 2)
	for i, p := range [][5]uint64{{0x1000, 0xffffffff81000000, 0x1000000, 0x800, 0x800}, {0x2000, 0xffffffff81002000, 0x1002000, 0x1000, 0x9000}} {
		ph := k[64+56*i:]
		le.PutUint32(ph, 1)
		for j, v := range []uint64{p[0], p[1], p[2], p[3], p[4]} {
			le.PutUint64(ph[8+8*j:], v)
		}
	}
	copy(k[0x1000:], noise(8, 0x800))
	copy(k[0x2000:], noise(9, 0x1000))
	b, err := FromParts(noise(1, QBootBytes), k, 0, noise(3, 100))
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, BundleAlign)
	copy(want, noise(8, 0x800))
	copy(want[0x2000:], noise(9, 0x1000))
	if b.KernelLoad != 0x1000000 || b.KernelEntry != 0x1000123 || !bytes.Equal(b.Kernel, want) || len(b.Initrd) != BundleAlign {
		t.Errorf("load %#x entry %#x, kernel of %d bytes", b.KernelLoad, b.KernelEntry, len(b.Kernel))
	}
	if _, err := FromParts(noise(1, QBootBytes), k, 0x1000000, nil); err == nil {
		t.Error("a load address for an ELF kernel accepted")
	}
	le.PutUint64(k[64+56+24:], 0x900000) // second segment below the first
	if _, err := FromParts(noise(1, QBootBytes), k, 0, nil); err == nil {
		t.Error("overlapping segments accepted")
	}
}

func TestFind(t *testing.T) {
	dir := t.TempDir()
	s := Search{Dirs: []string{filepath.Join(dir, "none"), dir}}
	var h interface{ Hint() string }
	if _, err := s.Find(kbs.SNP); !errors.As(err, &h) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing installed: %v", err)
	}
	writeFile(t, filepath.Join(dir, LibraryName), nil)
	if p, err := s.Find(kbs.SNP); err != nil || p != filepath.Join(dir, LibraryName) {
		t.Errorf("%s (%v)", p, err)
	}
	if _, err := s.Find(kbs.Sample); err == nil {
		t.Error("firmware for the sample TEE found")
	}
}

func FuzzModuleDepends(f *testing.F) {
	f.Add(staticELF())
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = moduleNeeds(b) })
}
