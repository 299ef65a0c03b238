package guest

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun"
)

// TestEmptyBTRFS: the file system that new volumes get is whole, has no UUID of
// another volume's, and is of SHA-256.
func TestEmptyBTRFS(t *testing.T) {
	if os.Getenv("CCRUN_UPDATE") != "" {
		updateEmptyBTRFS(t)
	}
	if emptyBTRFSBytes > krun.MinVolumeBytes {
		t.Error("it does not fit the smallest volume")
	}
	var disks [2][]byte
	for i := range disks {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, emptyBTRFSBytes); err != nil {
			t.Fatal(err)
		}
		if err := makeBTRFS(path, emptyBTRFSBytes, rand.Reader); err != nil {
			t.Fatal(err)
		}
		checkBTRFS(t, path)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		disks[i] = make([]byte, 8<<20)
		if _, err := f.ReadAt(disks[i], 0); err != nil {
			t.Fatal(err)
		}
	}
	const uuidAt = btrfsSuperAt + btrfsSum
	if bytes.Equal(disks[0][uuidAt:uuidAt+16], disks[1][uuidAt:uuidAt+16]) {
		t.Error("two volumes of one UUID")
	}
	for _, old := range emptyUUIDs {
		if bytes.Contains(disks[0], old[:]) {
			t.Errorf("UUID %x is everybody's", old)
		}
	}
	if kind := binary.LittleEndian.Uint16(disks[0][btrfsSuperAt+0xc4:]); kind != 2 {
		t.Errorf("checksums of type %d, expected SHA-256's", kind)
	}
	for _, bad := range [][]byte{nil, emptyBTRFS[:len(emptyBTRFS)-9], []byte("x")} {
		if _, err := emptyBlocks(bad); err == nil {
			t.Errorf("%d bytes are a file system", len(bad))
		}
	}
}

func checkBTRFS(t *testing.T, path string) {
	t.Helper()
	tool, err := exec.LookPath("btrfs")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("btrfs-progs is not installed")
		}
		return
	}
	out, err := exec.Command(tool, "check", "--check-data-csum", path).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "no error found") {
		t.Errorf("btrfs check: %v\n%s", err, out)
	}
}

// updateEmptyBTRFS has mkfs.btrfs make it, and keeps the nodes that the trees
// have.
func updateEmptyBTRFS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mkfs")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, emptyBTRFSBytes); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.btrfs", "-q", "--csum", "sha256", "-m", "single", "-d", "single", path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("btrfs", "inspect-internal", "dump-tree", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var blocks []btrfsBlock
	add := func(at, n int64) { blocks = append(blocks, btrfsBlock{at, disk[at : at+n]}) }
	add(btrfsSuperAt, btrfsSuper)
	add(64<<20, btrfsSuper)
	for _, m := range regexp.MustCompile(`(?m)^(?:leaf|node) (\d+) `).FindAllSubmatch(out, -1) {
		var at int64
		for _, d := range m[1] {
			at = 10*at + int64(d-'0')
		}
		add(at, btrfsNode)
	}
	super := disk[btrfsSuperAt:]
	ids := [][]byte{super[0x20:0x30], super[0x10b : 0x10b+16], nil}
	dev := regexp.MustCompile(`dev_item.uuid\s+(\S+)`).FindSubmatch(must(t, "btrfs", "inspect-internal", "dump-super", path))
	tree := regexp.MustCompile(`chunk uuid (\S+)`).FindSubmatch(out)
	for i, m := range [][][]byte{1: dev, 2: tree} {
		if m == nil {
			continue
		}
		id, err := hex.DecodeString(strings.ReplaceAll(string(m[1]), "-", ""))
		if err != nil {
			t.Fatal(err)
		}
		ids[i] = id
	}
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	for _, b := range blocks {
		c := slices.Clone(b.bytes)
		for i, id := range ids {
			c = bytes.ReplaceAll(c, id, emptyUUIDs[i][:])
		}
		sum := sha256.Sum256(c[btrfsSum:])
		copy(c, sum[:])
		_ = binary.Write(z, binary.LittleEndian, []uint64{uint64(b.at), uint64(len(c))})
		_, _ = z.Write(c)
	}
	_ = z.Close()
	if err := os.WriteFile("emptybtrfs.gz", packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	emptyBTRFS = packed.Bytes()
}

func must(t *testing.T, name string, arg ...string) []byte {
	t.Helper()
	out, err := exec.Command(name, arg...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}
