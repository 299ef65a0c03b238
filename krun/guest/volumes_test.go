package guest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// onThisKernel mounts an empty volume of that many bytes, without dm-crypt.
func onThisKernel(t *testing.T, size int64) (disk, dir string) {
	t.Helper()
	if os.Getuid() != 0 || !hasFilesystem("btrfs") {
		t.Skip("needs root and a kernel with BTRFS")
	}
	disk, dir = filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, size); err != nil {
		t.Fatal(err)
	}
	if err := makeBTRFS(disk, min(size, emptyBTRFSBytes), strings.NewReader(string(randomBytes(t, 48)))); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "-f", "--show", disk).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	if err := unix.Mount(loop, dir, "btrfs", unix.MS_NODEV, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := growBTRFS(dir, size); err != nil {
		t.Fatal(err)
	}
	return disk, dir
}

func randomBytes(t *testing.T, n int) []byte {
	t.Helper()
	f, err := os.Open("/dev/urandom")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, n)
	if _, err := f.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVolumeFileSystem: what a new volume gets is a file system of the device's
// size, which takes a generation even when the workload has filled it: or its
// next guest could not open it.
func TestVolumeFileSystem(t *testing.T) {
	disk, dir := onThisKernel(t, 300<<20)
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || int64(st.Blocks)*st.Bsize < 299<<20 {
		t.Errorf("%d blocks of %d bytes, %v", st.Blocks, st.Bsize, err)
	}
	if _, err := readGeneration(dir, "shop", "data"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a new file system has a generation: %v", err)
	}
	r := generationRecord{1, "shop", "data", 1}
	if err := writeGeneration(dir, r); err != nil {
		t.Fatal(err)
	}
	fill(t, filepath.Join(dir, "full"))
	for r.Generation = 2; r.Generation < 20; r.Generation++ {
		if err := writeGeneration(dir, r); err != nil {
			t.Fatalf("generation %d of a full volume: %v", r.Generation, err)
		}
		if n, err := readGeneration(dir, "shop", "data"); err != nil || n != r.Generation {
			t.Fatalf("generation %d, expected %d: %v", n, r.Generation, err)
		}
	}
	if label, err := generationLabel(dir); err != nil || label == 0 {
		t.Errorf("the test has no full volume: label %d, %v", label, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "full")); err != nil {
		t.Fatal(err)
	}
	if err := writeGeneration(dir, r); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	for _, other := range [][2]string{{"other", "data"}, {"shop", "logs"}} {
		if _, err := readGeneration(dir, other[0], other[1]); err == nil {
			t.Errorf("%v's generation", other)
		}
	}
	for name, text := range map[string]string{
		"empty": "", "no JSON": "x", "zero": `{"generation":0,"version":1,"volume":"data","workload":"shop"}`,
		"version": `{"generation":1,"version":2,"volume":"data","workload":"shop"}`, "not canonical": `{"version":1,"generation":1,"volume":"data","workload":"shop"}`,
		"long": strings.Repeat(" ", maxGenerationBytes+1),
	} {
		if err := os.WriteFile(filepath.Join(dir, generationFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readGeneration(dir, "shop", "data"); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	checkBTRFS(t, disk)
}

// TestVolumeOfEachSize: from the smallest on a new volume has all of its device,
// also where the kernel does not resize.
func TestVolumeOfEachSize(t *testing.T) {
	for _, size := range []int64{krun.MinVolumeBytes, krun.MinVolumeBytes + 4096, 200 << 20, leastResized - 4096, leastResized, 8 << 30} {
		disk := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(disk, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(disk, size); err != nil {
			t.Fatal(err)
		}
		if err := makeBTRFS(disk, size, rand.Reader); err != nil {
			t.Fatal(err)
		}
		checkBTRFS(t, disk)
	}
	for _, bad := range []int64{0, -4096, krun.MinVolumeBytes - 4096, krun.MinVolumeBytes + 1} {
		if err := makeBTRFS("/nowhere", bad, rand.Reader); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("of %d bytes: %v", bad, err)
		}
	}
	for _, size := range []int64{krun.MinVolumeBytes, leastResized} {
		t.Run("mounted", func(t *testing.T) {
			_, dir := onThisKernel(t, size)
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil || int64(st.Blocks)*st.Bsize != size {
				t.Errorf("%d blocks of %d bytes, %v", st.Blocks, st.Bsize, err)
			}
		})
	}
}

// fill leaves no room: large files, then small ones, which are in the tree.
func fill(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	full := false
	for _, size := range []int{8 << 20, 64 << 10, 4 << 10, 1 << 10} {
		for i := range 200000 {
			if err := os.WriteFile(filepath.Join(dir, strings.Repeat("x", 100)+"-"+string(rune('a'+size%26))+"-"+itoa(i)), make([]byte, size), 0o600); err != nil {
				full = errors.Is(err, unix.ENOSPC)
				break
			}
		}
	}
	unix.Sync()
	if !full {
		t.Error("the volume did not fill")
	}
}

func itoa(n int) string {
	var b []byte
	for ; n > 0 || b == nil; n /= 10 {
		b = append(b, byte('0'+n%10))
	}
	return string(b)
}

// TestVolumeKeyFollows: what the server keeps gives one key for a cipher, another
// for another, and none of another length.
func TestVolumeKeyFollows(t *testing.T) {
	digests := map[[48]byte]bool{}
	for _, cipher := range luks.Ciphers() {
		g, err := luks.NewGeometry("00000000-0000-4000-8000-000000000000", 128<<20, cipher, true)
		if err != nil {
			t.Fatal(err)
		}
		for key := byte(1); key < 3; key++ {
			var last [48]byte
			for range 2 {
				vk, err := volumeKeyOf(secret.New(bytes.Repeat([]byte{key}, kbs.VolumeKeyBytes)), g)
				if err != nil {
					t.Fatal(err)
				}
				if d := vk.Digest(); last != [48]byte{} && d != last {
					t.Error("two keys of one")
				} else {
					last = d
				}
			}
			digests[last] = true
		}
		if _, err := volumeKeyOf(secret.New([]byte("short")), g); err == nil {
			t.Error("a short key")
		}
		if _, err := volumeKeyOf(secret.Bytes{}, g); err == nil {
			t.Error("no key")
		}
	}
	if len(digests) != 2*len(luks.Ciphers()) {
		t.Errorf("%d keys of %d ciphers and two secrets", len(digests), len(luks.Ciphers()))
	}
}

// TestPathsStayInRoot: an image's links lead a volume to nowhere outside of it.
func TestPathsStayInRoot(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"root/a/b", "outside"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"up": "../../outside", "abs": "/a", "loop": "loop", "proc": "/proc/self/root"} {
		if err := os.Symlink(target, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, good := range map[string]bool{"/a/b": true, "/abs/b": true, "/up": false, "/loop": false, "/proc/tmp": false, "/file": false, "/none": false} {
		f, err := openInRoot(root, path)
		if (err == nil) != good {
			t.Errorf("%s: %v", path, err)
		}
		if err == nil {
			_ = f.Close()
		}
	}
	for _, path := range []string{"/new", "/a/new/er/est", "/abs/too"} {
		if err := makeInRoot(root, path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := makeInRoot(root, "/up/new"); err == nil {
		t.Error("made through a link that leads out")
	}
	if left, err := os.ReadDir(filepath.Join(dir, "outside")); err != nil || len(left) != 0 {
		t.Errorf("made outside: %v", left)
	}
	if _, err := os.Stat(filepath.Join(root, "a/too")); err != nil {
		t.Errorf("through a link within: %v", err)
	}
}
