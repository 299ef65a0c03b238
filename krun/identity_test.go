package krun

import (
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

func goodIdentity(t *testing.T) *Identity {
	t.Helper()
	g, err := luks.NewGeometry("8392b074-a42c-4b49-9b3e-8cfb0429ff8c", 1<<20, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	return &Identity{
		Version: IdentityVersion, WorkloadID: "w1", TEE: kbs.SNP,
		Servers: Servers{URLs: []string{"https://a.example:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
		Disk:    DiskIdentity{Geometry: g, VolumeKeyDigest: kbs.Sum384([]byte("k")), Filesystem: "btrfs", ImageBytes: g.TotalBytes() + FooterAlign},
		Scratch: Scratch{Kind: ScratchDisk, Bytes: 1 << 30, Damaged: DamagedReplace},
		Policy:  LaunchPolicy{Logs: "host"}, ProcessDigest: kbs.Sum384([]byte("p")),
	}
}

func TestIdentityRoundTrip(t *testing.T) {
	b, err := goodIdentity(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	id, err := DecodeIdentity(b)
	if err != nil || id.WorkloadID != "w1" {
		t.Fatal(id, err)
	}
	// One meaning, one spelling: anything else would be a second digest.
	for name, other := range map[string]string{
		"space":     strings.Replace(string(b), ",", ", ", 1),
		"unknown":   strings.Replace(string(b), `"version":2`, `"version":2,"zz":1`, 1),
		"duplicate": strings.Replace(string(b), `"version":2`, `"version":2,"version":2`, 1),
		"trailing":  string(b) + "{}",
		"empty":     "",
	} {
		if _, err := DecodeIdentity([]byte(other)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestWaitIsOptional: images without the choice keep their bytes, and a guest
// of such an image waits.
func TestWaitIsOptional(t *testing.T) {
	id := goodIdentity(t)
	b, err := id.Encode()
	if err != nil || strings.Contains(string(b), "wait") || id.Servers.Wait() != kbs.Forever {
		t.Errorf("%s, waits %s, %v", b, id.Servers.Wait(), err)
	}
	id.Servers.WaitSeconds = 90
	if b, err = id.Encode(); err != nil || !strings.Contains(string(b), `"wait_seconds":90`) {
		t.Fatalf("%s, %v", b, err)
	}
	if id, err = DecodeIdentity(b); err != nil || id.Servers.Wait() != 90*time.Second {
		t.Errorf("decoded: %v", err)
	}
	for _, bad := range []string{"-1", "1.5", `"90"`, "4294967296"} {
		if _, err := DecodeIdentity([]byte(strings.Replace(string(b), ":90", ":"+bad, 1))); err == nil {
			t.Errorf("wait_seconds %s accepted", bad)
		}
	}
}

// TestIdentityRefusesWhatIsOpen changes one member each.
func TestIdentityRefusesWhatIsOpen(t *testing.T) {
	for name, spoil := range map[string]func(*Identity){
		"version":         func(i *Identity) { i.Version = 3 },
		"no version":      func(i *Identity) { i.Version = 0 },
		"no id":           func(i *Identity) { i.WorkloadID = "" },
		"path as id":      func(i *Identity) { i.WorkloadID = "../x" },
		"tee":             func(i *Identity) { i.TEE = "sgx" },
		"no url":          func(i *Identity) { i.Servers.URLs = nil },
		"http":            func(i *Identity) { i.Servers.URLs = []string{"http://a"} },
		"url with path":   func(i *Identity) { i.Servers.URLs = []string{"https://a/b"} },
		"no pin":          func(i *Identity) { i.Servers.PinnedKeys = nil },
		"short pin":       func(i *Identity) { i.Servers.PinnedKeys = []string{"ab"} },
		"null cipher":     func(i *Identity) { i.Disk.Cipher = "cipher_null-ecb" },
		"no cipher":       func(i *Identity) { i.Disk.Cipher = "" },
		"key size":        func(i *Identity) { i.Disk.VolumeKeyBytes = 0 },
		"sector size":     func(i *Identity) { i.Disk.SectorBytes = 0 },
		"no plain size":   func(i *Identity) { i.Disk.PlainBytes = 0 },
		"no uuid":         func(i *Identity) { i.Disk.UUID = "" },
		"integrity":       func(i *Identity) { i.Disk.Integrity = &luks.Integrity{Algorithm: "none"} },
		"no key digest":   func(i *Identity) { i.Disk.VolumeKeyDigest = kbs.Digest{} },
		"file system":     func(i *Identity) { i.Disk.Filesystem = "vfat" },
		"no image size":   func(i *Identity) { i.Disk.ImageBytes = 0 },
		"image is longer": func(i *Identity) { i.Disk.ImageBytes += 1 << 20 },
		"image is cut":    func(i *Identity) { i.Disk.ImageBytes -= 4096 },
		"odd image":       func(i *Identity) { i.Disk.ImageBytes++ },
		"no scratch":      func(i *Identity) { i.Scratch = Scratch{} },
		"unknown scratch": func(i *Identity) { i.Scratch.Kind = "tape" },
		"tiny scratch":    func(i *Identity) { i.Scratch.Bytes = 4096 },
		"huge scratch":    func(i *Identity) { i.Scratch.Bytes = 1 << 41 },
		"odd scratch":     func(i *Identity) { i.Scratch.Bytes++ },
		"no rule":         func(i *Identity) { i.Scratch.Damaged = "" },
		"unknown rule":    func(i *Identity) { i.Scratch.Damaged = "ignore" },
		"scratch on ext4": func(i *Identity) { i.Disk.Filesystem = "ext4" },
		"memory of size":  func(i *Identity) { i.Scratch = Scratch{Kind: ScratchMemory, Bytes: 1 << 30} },
		"rule for none":   func(i *Identity) { i.Scratch = Scratch{Kind: ScratchNone, Damaged: DamagedRefuse} },
		"old version":     func(i *Identity) { i.Version = 1 },
		"no process":      func(i *Identity) { i.ProcessDigest = kbs.Digest{} },
		"network":         func(i *Identity) { i.Network = &Network{Mode: NetworkVirtio} },
		"name server":     func(i *Identity) { i.Network = &Network{DNS: []string{"dns.example"}} },
		"ACPI of libkrun": func(i *Identity) { i.Policy.AllowACPI = true },
		"encrypted logs":  func(i *Identity) { i.Policy.Logs = "encrypted" },
		"no logs policy":  func(i *Identity) { i.Policy.Logs = "" },
		"too much to say": func(i *Identity) { i.Policy.EnvAllow = []string{strings.Repeat("x", MaxIdentityBytes)} },
	} {
		id := goodIdentity(t)
		spoil(id)
		if _, err := id.Encode(); err == nil {
			t.Errorf("%s: accepted", name)
		}
		// What encodes to nothing else must not pass for good either.
		if err := id.Validate(); err == nil && name != "too much to say" {
			t.Errorf("%s: valid", name)
		}
	}
}

func FuzzDecodeIdentity(f *testing.F) {
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := DecodeIdentity(b)
		if err != nil {
			return
		}
		again, err := id.Encode()
		if err != nil || string(again) != string(b) {
			t.Fatalf("accepted %q, which encodes as %q (%v)", b, again, err)
		}
	})
}

// TestProcessDigestNeedsTheKey: the digest is another one under each key, never
// the plain one that version 1 had, and none without a key.
func TestProcessDigestNeedsTheKey(t *testing.T) {
	raw := []byte("process")
	a := ProcessDigest(secret.New([]byte("a")), raw)
	if a == ProcessDigest(secret.New([]byte("b")), raw) || a == kbs.Sum384(raw) || a.IsZero() {
		t.Errorf("digest %s", a)
	}
	if a == ProcessDigest(secret.New([]byte("a")), []byte("Process")) {
		t.Error("two configurations have one digest")
	}
	if d := ProcessDigest(secret.Bytes{}, raw); !d.IsZero() {
		t.Errorf("without a key: %s", d)
	}
}

// TestVersion1IsStillRead: images of before can be inspected and rotated.
func TestVersion1IsStillRead(t *testing.T) {
	id := goodIdentity(t)
	id.Version, id.Scratch, id.Disk.ImageBytes, id.Disk.Filesystem = 1, Scratch{}, 0, "ext4"
	b, err := id.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if id, err = DecodeIdentity(b); err != nil || id.Version != 1 {
		t.Errorf("%+v, %v", id, err)
	}
}
