package firmware

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
)

func testIdentity(t testing.TB) []byte {
	t.Helper()
	geometry, err := luks.NewGeometry("8392b074-a42c-4b49-9b3e-8cfb0429ff8c", 1<<20, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	id := krun.Identity{
		Version: krun.IdentityVersion, WorkloadID: "w1", TEE: kbs.SNP,
		Servers:       krun.Servers{URLs: []string{"https://attest.example:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
		Disk:          krun.DiskIdentity{Geometry: geometry, VolumeKeyDigest: kbs.Sum384([]byte("k")), Filesystem: "ext4", ImageBytes: geometry.TotalBytes() + krun.FooterAlign},
		Scratch:       krun.Scratch{Kind: krun.ScratchMemory},
		ProcessDigest: kbs.Sum384([]byte("p")), Policy: krun.LaunchPolicy{Logs: "host"},
	}
	b, err := id.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// staticELF is the head of a static x86-64 executable and noise.
func staticELF() []byte {
	b := make([]byte, 120, 5000)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], 2)
	binary.LittleEndian.PutUint16(b[18:], 62)
	binary.LittleEndian.PutUint32(b[20:], 1)
	binary.LittleEndian.PutUint64(b[32:], 64)
	binary.LittleEndian.PutUint16(b[52:], 64)
	binary.LittleEndian.PutUint16(b[54:], 56)
	binary.LittleEndian.PutUint16(b[56:], 1)
	binary.LittleEndian.PutUint32(b[64:], 1) // PT_LOAD
	return append(b, noise(5, 4000)...)
}

func testInitrd(t testing.TB) []byte {
	t.Helper()
	agent, err := AgentSegment(staticELF())
	if err != nil {
		t.Fatal(err)
	}
	identity, err := IdentitySegment(testIdentity(t))
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := ComposeInitrd(agent, identity)
	if err != nil {
		t.Fatal(err)
	}
	return initrd
}

func TestInspectOwnInitrd(t *testing.T) {
	initrd := testInitrd(t)
	if len(initrd)%PageBytes != 0 || !bytes.Equal(initrd, testInitrd(t)) {
		t.Fatal("the initrd is not padded, or not the same each time")
	}
	id, entries, err := InspectInitrd(initrd)
	if err != nil || id.WorkloadID != "w1" {
		t.Fatalf("%+v (%v)", id, err)
	}
	var init, console, identity *Entry
	for i, e := range entries {
		switch e.Name {
		case "/init":
			init = &entries[i]
		case "/dev/console":
			console = &entries[i]
		case krun.IdentityPath:
			identity = &entries[i]
		}
	}
	if init == nil || init.Mode != 0o100755 || int(init.SizeBytes) != len(staticELF()) {
		t.Errorf("/init is %+v", init)
	}
	if console == nil || console.Mode != 0o020600 || console.Device != "5:1" {
		t.Errorf("/dev/console is %+v", console)
	}
	if identity == nil || identity.Mode != 0o100400 || identity.Archive != 1 {
		t.Errorf("identity is %+v", identity)
	}
}

// TestCpioReadsOurs lists each archive with GNU cpio, an independent reader.
func TestCpioReadsOurs(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("cpio is needed in CI")
		}
		t.Skip("cpio is not installed")
	}
	agent, err := AgentSegment(staticELF())
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(agent))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cpio", "-itv", "--quiet", "--numeric-uid-gid")
	cmd.Stdin = z
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"-rwxr-xr-x   1 0        0 ", "crw-------   1 0        0          5,   1 ", "drwxrwxrwt", " newroot\n", " dev/null\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestAgentMustBeStatic(t *testing.T) {
	dynamic := staticELF()
	binary.LittleEndian.PutUint32(dynamic[64:], 3) // PT_INTERP
	arm := staticELF()
	binary.LittleEndian.PutUint16(arm[18:], 183)
	for name, b := range map[string][]byte{"dynamic": dynamic, "arm": arm, "script": []byte("#!/bin/sh\n"), "empty": nil} {
		if _, err := AgentSegment(b); err == nil {
			t.Errorf("%s agent accepted", name)
		}
	}
	if _, err := IdentitySegment([]byte(`{}`)); err == nil {
		t.Error("empty identity accepted")
	}
}

func cpioOf(nodes ...node) []byte {
	var a archive
	for _, n := range nodes {
		a.add(n)
	}
	return a.finish()
}

func gz(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func TestInspectRefusals(t *testing.T) {
	good := testInitrd(t)
	identity := node{name: "etc/ccrun/identity.json", mode: typeRegular | 0o400, data: testIdentity(t)}
	file := func(name string) node { return node{name: name, mode: typeRegular | 0o644, data: []byte("x")} }
	link := func(name string) node { return node{name: name, mode: typeSymlink | 0o777, data: []byte("/tmp")} }
	long := cpioOf(file("a"))
	copy(long[94:], "ffffffff") // namesize
	huge := cpioOf(file("a"))
	copy(huge[54:], "ffffffff") // filesize
	hardlink := cpioOf(file("a"))
	copy(hardlink[38:], "00000002") // nlink
	for name, b := range map[string][]byte{
		"identity twice":         slices.Concat(good, gz(cpioOf(identity))),
		"identity by other name": slices.Concat(good, gz(cpioOf(node{name: "./etc//ccrun/x/../identity.json", mode: typeRegular, data: identity.data}))),
		"init twice":             slices.Concat(good, cpioOf(file("init"))),
		"identity is no JSON":    gz(cpioOf(node{name: "etc/ccrun/identity.json", mode: typeRegular, data: []byte("x")})),
		"identity is a link":     gz(cpioOf(link("etc/ccrun/identity.json"))),
		"identity's parent link": gz(cpioOf(link("etc"), identity)),
		"link after identity":    gz(cpioOf(identity, link("etc/ccrun"))),
		"identity under a file":  gz(cpioOf(file("etc"), identity)),
		"file where a directory": slices.Concat(good, gz(cpioOf(file("dev")))),
		"fifo":                   cpioOf(node{name: "f", mode: 0o010644}),
		"hard link":              hardlink,
		"truncated gzip":         good[:len(gz(nil))+900],
		"junk after":             slices.Concat(good, []byte("junk")),
		"misaligned archive":     slices.Concat([]byte{0, 0}, cpioOf(file("a"))),
		"other compression":      []byte("\xfd7zXZ\x00"),
		"cut cpio":               cpioOf(file("a"))[:130],
		"no trailer":             cpioOf(file("a"))[:120],
		"long name":              long,
		"huge file":              huge,
		"gzip of junk":           gz([]byte("070702")),
		"bomb":                   slices.Concat(gz(cpioOf(identity)), bytes.Repeat(gz(make([]byte, 1<<20)), maxUnpackedBytes>>20)),
	} {
		if id, _, err := InspectInitrd(b); err == nil || errors.Is(err, ErrNoIdentity) {
			t.Errorf("%s: accepted, %+v (%v)", name, id, err)
		}
	}
	for name, b := range map[string][]byte{"empty": nil, "zeros": make([]byte, 8192), "other files": cpioOf(file("a"))} {
		if _, _, err := InspectInitrd(b); !errors.Is(err, ErrNoIdentity) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckLibkrunInitrd(t *testing.T) {
	for size, ok := range map[int]bool{0: false, 4096: true, 4097: false, 6<<20 - 4096: true, 6 << 20: true, 6<<20 + 4096: false} {
		if err := CheckLibkrunInitrd(make([]byte, size)); (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func FuzzInspectInitrd(f *testing.F) {
	f.Add(testInitrd(f))
	f.Add(cpioOf(node{name: "a", mode: typeRegular, data: []byte("x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, _, err := InspectInitrd(b)
		if (id == nil) == (err == nil) {
			t.Fatal("identity and error disagree")
		}
	})
}
