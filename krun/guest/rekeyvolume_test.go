package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
)

// sectors is a device of which some sectors have no right tag, or cannot be read.
type sectors struct {
	bytes  []byte
	broken map[int64]error
	asked  int
}

func (s *sectors) ReadAt(b []byte, at int64) (int, error) {
	s.asked++
	for i := at; i < at+int64(len(b)); i += copySector {
		if err := s.broken[i/copySector]; err != nil {
			return 0, err
		}
	}
	return copy(b, s.bytes[at:]), nil
}

func (s *sectors) WriteAt(b []byte, at int64) (int, error) {
	for i := at; i < at+int64(len(b)); i += copySector {
		delete(s.broken, i/copySector)
	}
	return copy(s.bytes[at:], b), nil
}

// TestCopyReadable: sectors without a tag stay so, and none beside them is left
// out; what cannot be read ends the copy.
func TestCopyReadable(t *testing.T) {
	const n = 37
	content := bytes.Repeat([]byte("0123456789abcdef"), n*copySector/16)
	for i := range n {
		binary.LittleEndian.PutUint64(content[i*copySector:], uint64(i))
	}
	for _, holes := range [][]int64{nil, {0}, {n - 1}, {3, 4, 5, 20}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}} {
		in := &sectors{bytes: content, broken: map[int64]error{}}
		for _, h := range holes {
			in.broken[h] = &os.PathError{Op: "read", Err: unix.EILSEQ}
		}
		out := &sectors{bytes: make([]byte, len(content)), broken: map[int64]error{}}
		for i := range int64(n) {
			out.broken[i] = unix.EILSEQ
		}
		if err := copyReadable(in, out, make([]byte, len(content)), 0); err != nil {
			t.Fatal(err)
		}
		for i := range int64(n) {
			hole := in.broken[i] != nil
			if same := bytes.Equal(out.bytes[i*copySector:(i+1)*copySector], content[i*copySector:(i+1)*copySector]); same == hole || (out.broken[i] != nil) != hole {
				t.Errorf("holes %v: sector %d: hole %v, copied %v", holes, i, hole, same)
			}
		}
	}
	in := &sectors{bytes: content, broken: map[int64]error{5: unix.EIO}}
	if err := copyReadable(in, &sectors{bytes: make([]byte, len(content))}, make([]byte, len(content)), 0); !errors.Is(err, unix.EIO) {
		t.Errorf("of a sector that cannot be read: %v", err)
	}
}

// TestCopyOfAVolume: the parts of a device that its file system may have used are
// all of the file system; a copy that is not whole is noticed.
func TestCopyOfAVolume(t *testing.T) {
	const size = krun.MinVolumeBytes
	disk, dir := onThisKernel(t, size)
	r := generationRecord{1, "shop", "data", 7}
	content := bytes.Repeat([]byte("what the workload wrote\n"), 100_000)
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), append([]byte(name), content...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeGeneration(dir, r); err != nil {
		t.Fatal(err)
	}
	used, err := btrfsUsed(dir, size)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, s := range used {
		sum += s.bytes
	}
	if len(used) < 4 || sum > size {
		t.Errorf("used: %v", used)
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(copied, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(copied, size); err != nil {
		t.Fatal(err)
	}
	if err := copyUsed(disk, copied, used); err != nil {
		t.Fatal(err)
	}
	checkBTRFS(t, copied)
	out, err := exec.Command("losetup", "-f", "--show", copied).Output()
	if err != nil {
		t.Skipf("no loop device: %v", err)
	}
	loop := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "-d", loop).Run() })
	open := func() {
		t.Helper()
		if err := unix.Mount(loop, dir, "btrfs", unix.MS_NODEV, ""); err != nil {
			t.Fatal(err)
		}
	}
	open()
	if err := scrubBTRFS(dir); err != nil {
		t.Errorf("the copy: %v", err)
	}
	if n, err := readGeneration(dir, "shop", "data"); err != nil || n != 7 {
		t.Errorf("the copy's generation: %d, %v", n, err)
	}
	for _, name := range []string{"a", "b", "c"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, append([]byte(name), content...)) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, content[:4096])
	if at < 0 {
		t.Fatal("the content is nowhere")
	}
	f, err := os.OpenFile(loop, os.O_WRONLY|unix.O_SYNC, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("W"), int64(at))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	open()
	if err := scrubBTRFS(dir); err == nil {
		t.Error("a copy that is not whole is taken for whole")
	}
}

func TestDevExtents(t *testing.T) {
	const size = 1 << 30
	item := func(at, n uint64, kind, length uint32) []byte {
		b := make([]byte, 32+extentBytes)
		binary.LittleEndian.PutUint64(b[16:], at)
		binary.LittleEndian.PutUint32(b[24:], kind)
		binary.LittleEndian.PutUint32(b[28:], length)
		binary.LittleEndian.PutUint64(b[32+extentLength:], n)
		return b
	}
	good := item(1<<20, 8<<20, btrfsDevExtent, extentBytes)
	all, err := devExtents(append(append([]byte{}, good...), item(9<<20, 4096, btrfsDevExtent, extentBytes)...), 2, size)
	if err != nil || len(all) != 2 || all[0] != (extent{1 << 20, 8 << 20}) || all[1] != (extent{9 << 20, 4096}) {
		t.Errorf("%v, %v", all, err)
	}
	for name, b := range map[string][]byte{
		"short": good[:40], "another kind": item(1<<20, 4096, 1, extentBytes), "another length": item(1<<20, 4096, btrfsDevExtent, 49),
		"behind the end": item(size, 4096, btrfsDevExtent, extentBytes), "too long": item(4096, size, btrfsDevExtent, extentBytes),
		"overflow": item(4096, 1<<64-4096, btrfsDevExtent, extentBytes), "no bytes": item(4096, 0, btrfsDevExtent, extentBytes), "half a sector": item(512, 4096, btrfsDevExtent, extentBytes),
	} {
		if _, err := devExtents(b, 1, size); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}

// TestSecondHalf: where a rekeyed volume is reaches into no other's area.
func TestSecondHalf(t *testing.T) {
	image, err := luks.NewGeometry("00000000-0000-4000-8000-000000000000", 128<<20, luks.Ciphers()[0], true)
	if err != nil {
		t.Fatal(err)
	}
	for bytes, fits := range map[int64]bool{krun.MinVolumeBytes: true, 8 << 30: true, 400 << 30: true, 512 << 30: false, krun.MaxVolumeBytes: false} {
		g, err := krun.Volume{Bytes: bytes}.Geometry(image)
		if err != nil {
			t.Fatal(err)
		}
		d := &volumeDevice{geometry: g}
		if err := d.fits(1); (err == nil) != fits {
			t.Errorf("%d bytes: %v", bytes, err)
		}
		if err := d.fits(0); err != nil {
			t.Errorf("%d bytes in the first half: %v", bytes, err)
		}
	}
}
