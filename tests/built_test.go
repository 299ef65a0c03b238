package tests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/tests/diskcase"
)

// builtDisk makes a workload image with `ccrun build`, checks its disk on this
// host with Debian's tools, and returns it as a case for the guest.
func builtDisk(t *testing.T, dir string) *interopDisk {
	t.Helper()
	d := &interopDisk{path: filepath.Join(dir, "disk.img")}
	d.Name, d.Serial = "ccrun build's by cryptsetup", "built"
	d.Cryptsetup, d.ReadOnly, d.Expect = true, true, diskcase.Reads
	source, image, record := filepath.Join(dir, "source"), filepath.Join(dir, "image"), filepath.Join(dir, "record")
	writeOCI(t, source, shell("true"), busyboxLayer(t))
	build := exec.Command(filepath.Join(binDir(t), "ccrun"), "build", "-q", "--tee", "sample", "--firmware", os.Getenv("CCRUN_SIM_FIRMWARE"),
		"--attest-url", "https://127.0.0.1:1", "--pin", strings.Repeat("00", 31)+"01", "--fs", "ext4", "--no-register", "--record", record, "oci:"+source, "oci:"+image)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("ccrun build: %v: %s", err, out)
	}
	extractDisk(t, image, d.path)
	d.readRecord(t, record)
	// cryptsetup maps a disk to its end. Where the footer is long enough for
	// dm-integrity to find room for another sector in it, that would be noted in
	// the superblock, of a disk that takes no writes.
	if err := os.Truncate(d.path, d.Geometry.TotalBytes()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	d.before = diskcase.Sum(b)
	if d.content, err = d.decrypted(t); err != nil {
		t.Fatal(err)
	}
	d.Before = diskcase.Sum(d.content)
	t.Run("ccrun build's header by cryptsetup", d.checkHeader)
	t.Run("ccrun build's file system by e2fsck", d.checkFileSystem)
	return d
}

// extractDisk takes /disk.img out of an OCI layout with one layer.
func extractDisk(t *testing.T, layout, to string) {
	t.Helper()
	type descriptor struct{ Digest string }
	var index struct{ Manifests []descriptor }
	var manifest struct{ Layers []descriptor }
	blob := func(d descriptor) string {
		return filepath.Join(layout, "blobs", strings.Replace(d.Digest, ":", "/", 1))
	}
	unmarshalFile(t, filepath.Join(layout, "index.json"), &index)
	if len(index.Manifests) != 1 {
		t.Fatalf("%d manifests, expected 1", len(index.Manifests))
	}
	unmarshalFile(t, blob(index.Manifests[0]), &manifest)
	if len(manifest.Layers) != 1 {
		t.Fatalf("%d layers, expected 1", len(manifest.Layers))
	}
	// --wildcards: the name may have "./" in front.
	cmd := exec.Command("tar", "--wildcards", "-xOf", blob(manifest.Layers[0]), "*disk.img")
	f, err := os.Create(to)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Stdout = f
	if err := cmd.Run(); err != nil {
		t.Fatalf("extracting disk.img: %v", err)
	}
}

func unmarshalFile(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// readRecord takes passphrase and geometry from the record, and the volume
// key from the disk.
func (d *interopDisk) readRecord(t *testing.T, path string) {
	t.Helper()
	var r kbs.Record
	unmarshalFile(t, path, &r)
	d.Passphrase = string(r.DiskKey)
	id, err := krun.DecodeIdentity(r.Identity)
	if err != nil {
		t.Fatal(err)
	}
	d.adoptHeader(t)
	if d.vk.Digest() != [48]byte(id.Disk.VolumeKeyDigest) {
		t.Fatal("the record's disk key opens another volume key than the identity's")
	}
	d.Geometry = id.Disk.Geometry // the measured one
}

// checkHeader asks the host's cryptsetup.
func (d *interopDisk) checkHeader(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(d.Passphrase), 0o600); err != nil {
		t.Fatal(err)
	}
	cryptsetup := systemTool(t, "cryptsetup")
	dump, err := exec.Command(cryptsetup, "luksDump", d.path).CombinedOutput()
	if err != nil {
		t.Fatalf("luksDump: %v: %s", err, dump)
	}
	for _, want := range []string{d.Geometry.UUID, "cipher: aes-xts-plain64", "sector: 4096", "integrity: hmac(sha256)", "Iterations: 1000"} {
		if !strings.Contains(string(dump), want) {
			t.Errorf("luksDump lacks %q:\n%s", want, dump)
		}
	}
	open := func(keyFile string) error {
		return exec.Command(cryptsetup, "open", "--test-passphrase", "--disable-locks", "--key-file", keyFile, d.path).Run()
	}
	if err := open(key); err != nil {
		t.Errorf("the record's disk key: %v", err)
	}
	write(t, key, []byte(strings.Repeat("0", len(d.Passphrase))))
	if err := open(key); err == nil {
		t.Error("another disk key opens the disk, too")
	}
}

// checkFileSystem decrypts the disk and has e2fsck and debugfs look at it.
func (d *interopDisk) checkFileSystem(t *testing.T) {
	fs := filepath.Join(t.TempDir(), "ext4")
	write(t, fs, d.content)
	if out, err := exec.Command(systemTool(t, "e2fsck"), "-fn", fs).CombinedOutput(); err != nil {
		t.Errorf("e2fsck: %v\n%s", err, out)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command(systemTool(t, "debugfs"), "-R", "cat /bin/busybox", fs).Output()
	if err != nil || string(got) != string(busybox) {
		t.Errorf("/bin/busybox of %d bytes, %v; expected the host's %d", len(got), err, len(busybox))
	}
}
