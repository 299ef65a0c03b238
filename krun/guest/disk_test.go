package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/luks/lukstest"
	"github.com/ccrun/ccrun/secret"
)

const footerJSON = `{"workload_id":"w"}`

// testDisk is a small workload disk that opens with "disk key".
func testDisk(t *testing.T) ([]byte, luks.Geometry, *luks.VolumeKey) {
	t.Helper()
	d := lukstest.New(t, "disk key", luks.FastKDF(), false)
	return append(d.Bytes, krun.AppendFooter(int64(len(d.Bytes)), []byte(footerJSON))...), d.Geometry, d.VolumeKey
}

func TestReadDisk(t *testing.T) {
	img, _, _ := testDisk(t)
	d, err := readDisk(bytes.NewReader(img), "/dev/vda", int64(len(img)), int64(len(img)))
	if err != nil || d.footerDigest != kbs.Sum384([]byte(footerJSON)) {
		t.Fatalf("%+v, %v", d, err)
	}
	// What is behind the image is scratch: a footer there is the host's.
	longer := append(bytes.Clone(img), krun.AppendFooter(int64(len(img)), []byte(`{"workload_id":"other"}`))...)
	if d, err := readDisk(bytes.NewReader(longer), "/dev/vda", int64(len(longer)), int64(len(img))); err != nil || d.footerDigest != kbs.Sum384([]byte(footerJSON)) {
		t.Errorf("with a footer behind the image: %+v, %v", d, err)
	}
	if _, err := readDisk(bytes.NewReader(img), "/dev/vda", int64(len(img)), 0); err == nil {
		t.Error("an image of unknown length is accepted")
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut":         func(b []byte) []byte { return b[:len(b)-4096] },
		"no footer":   func(b []byte) []byte { clear(b[len(b)-4096:]); return b },
		"empty":       func([]byte) []byte { return nil },
		"footer only": func(b []byte) []byte { return b[len(b)-4096:] },
		"huge footer": func(b []byte) []byte { b[len(b)-1] = 0x7f; return b },
		"zero footer": func(b []byte) []byte { clear(b[len(b)-8:]); return b },
		"another KDF": func(b []byte) []byte {
			return lukstest.Edit(t, b, `"iterations":1000,"salt"`, `"iterations":1001,"salt"`)
		},
		"wiped header": func(b []byte) []byte { clear(b[:64<<10]); return b },
	} {
		b := change(bytes.Clone(img))
		if _, err := readDisk(bytes.NewReader(b), "/dev/vda", int64(len(b)), int64(len(img))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// unlockDisk must refuse before it touches device-mapper, for which this test
// has no privilege.
func TestUnlockRefuses(t *testing.T) {
	img, g, vk := testDisk(t)
	for name, c := range map[string]struct {
		key    string
		digest kbs.Digest
		want   string
	}{
		"wrong disk key":    {"other key", kbs.Digest(vk.Digest()), "no LUKS keyslot opens"},
		"empty disk key":    {"", kbs.Digest(vk.Digest()), "no LUKS keyslot opens"},
		"other disk":        {"disk key", kbs.Digest{1}, "volume key has another digest"},
		"unset volume key":  {"disk key", kbs.Digest{}, "volume key has another digest"},
		"device not a disk": {"disk key", kbs.Digest(vk.Digest()), "/nonexistent"},
	} {
		d, err := readDisk(bytes.NewReader(img), "/nonexistent", int64(len(img)), int64(len(img)))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := testBoot()
		b.disk, b.diskKey = d, secret.New([]byte(c.key))
		b.identity = &krun.Identity{Disk: krun.DiskIdentity{Geometry: g, VolumeKeyDigest: c.digest}}
		err = b.unlockDisk(context.Background())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, expected %q", name, err, c.want)
		}
		if b.mapped != "" || b.diskKey.Len() != 0 {
			t.Errorf("%s: device %q, key of %d bytes left", name, b.mapped, b.diskKey.Len())
		}
	}
}

func TestReadDiskMutations(t *testing.T) {
	img, _, _ := testDisk(t)
	r := mrand.New(mrand.NewPCG(1, 2))
	times := 100
	if os.Getenv("CCRUN_LONG") != "" {
		times = 1000
	}
	for range times { // whatever the host writes: an error or a disk, never a panic
		b := bytes.Clone(img)
		for range 1 + r.IntN(4) {
			b[r.IntN(32<<10)] ^= byte(1 + r.IntN(255))
		}
		b[len(b)-1-r.IntN(32)] ^= byte(r.IntN(256))
		_, _ = readDisk(bytes.NewReader(b), "/dev/vda", int64(len(b)), int64(len(img)))
	}
}

func TestVirtioDisks(t *testing.T) {
	class := t.TempDir()
	if got, err := virtioDisks(class); err == nil {
		t.Errorf("no disk: %v", got)
	}
	for _, name := range []string{"vdb", "loop0", "vda", "sda", "dm-0"} {
		if err := os.Mkdir(filepath.Join(class, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := virtioDisks(class); err != nil || !reflect.DeepEqual(got, []string{"/dev/vda", "/dev/vdb"}) {
		t.Errorf("%v, %v", got, err)
	}
}

// TestChooseDisk: other disks, of other images too, may be anywhere.
func TestChooseDisk(t *testing.T) {
	ours, geometry, _ := testDisk(t)
	other := bytes.Clone(ours)
	for _, header := range []int{0, 16 << 10} {
		copy(other[header+168:], "11111111-2222-3333-4444-555555555555")
	}
	other = lukstest.Rewrite(t, other, func(metadata []byte) []byte { return metadata })
	open := func(path string) (*disk, error) {
		img := map[string][]byte{"ours": ours, "other": other, "another": other}[path]
		return readDisk(bytes.NewReader(img), path, int64(len(img)), int64(len(ours)))
	}
	for _, c := range []struct{ paths, want string }{
		{"ours", "ours"}, {"broken ours", "ours"}, {"other ours", "ours"}, {"ours other", "ours"},
		{"broken other another ours broken", "ours"}, {"broken other another", "other"}, {"broken", ""}, {"", ""},
	} {
		d, err := chooseDisk(strings.Fields(c.paths), geometry.UUID, open)
		got := ""
		if err == nil {
			got = d.path
		}
		if got != c.want {
			t.Errorf("%q: chose %q (%v), expected %q", c.paths, got, err, c.want)
		}
	}
}

func TestUnknownFilesystem(t *testing.T) {
	o := opened{mapped: os.DevNull}
	if err := o.mount("ext2", krun.Scratch{Kind: krun.ScratchNone}); err == nil || !strings.Contains(err.Error(), "ext2") {
		t.Errorf("ext2: %v", err)
	}
}

func TestReleaseHints(t *testing.T) {
	if err := withReleaseHint(kbs.ErrUnpinned, nil); !strings.Contains(hint.Of(err), "--attest-ca") {
		t.Errorf("unpinned: %v", err)
	}
	already := &kbs.ProblemError{Problem: kbs.Problem{Code: kbs.CodeAlreadyReleased, Status: 409}}
	if err := withReleaseHint(already, nil); !strings.Contains(hint.Of(err), "start the container again") {
		t.Errorf("already released: %v", err)
	}
	var b boot
	var s *statusError
	if err := b.refused(already); errors.As(err, &s) {
		t.Errorf("already released ends with status %d, as if denied", s.status)
	}
	refused := &kbs.ProblemError{Problem: kbs.Problem{Code: kbs.CodeAttestationDenied, Session: "7"}}
	if err := withReleaseHint(refused, nil); err != error(refused) || hint.Of(err) != refused.Hint() {
		t.Errorf("the server's own hint is hidden: %v", err)
	}
}

// faultyDisk answers as the host's disk may: with an error at the nth reading,
// with less than was asked for, with the end, or each time with something else.
type faultyDisk struct {
	content []byte
	nth     int
	fault   func(d *faultyDisk, p []byte, off int64) (int, error)
	reads   int
}

func (d *faultyDisk) ReadAt(p []byte, off int64) (int, error) {
	if d.reads++; d.reads-1 == d.nth {
		return d.fault(d, p, off)
	}
	return bytes.NewReader(d.content).ReadAt(p, off)
}

// TestReadDiskFaults: a fault at any of the readings is an error, and never a
// disk that was half read.
func TestReadDiskFaults(t *testing.T) {
	img, _, _ := testDisk(t)
	good := &faultyDisk{content: img, nth: -1}
	if _, err := readDisk(good, "/dev/vda", int64(len(img)), int64(len(img))); err != nil || good.reads < 4 {
		t.Fatalf("%d readings, %v", good.reads, err)
	}
	for name, fault := range map[string]func(d *faultyDisk, p []byte, off int64) (int, error){
		"EIO": func(*faultyDisk, []byte, int64) (int, error) { return 0, unix.EIO },
		"half, EIO": func(d *faultyDisk, p []byte, off int64) (int, error) {
			n := copy(p, d.content[off:][:len(p)/2])
			return n, unix.EIO
		},
		"short": func(d *faultyDisk, p []byte, off int64) (int, error) {
			n := copy(p, d.content[off:][:len(p)/2])
			return n, io.EOF
		},
		"end":     func(*faultyDisk, []byte, int64) (int, error) { return 0, io.EOF },
		"shrinks": func(d *faultyDisk, _ []byte, _ int64) (int, error) { d.content = nil; return 0, io.EOF },
	} {
		for nth := range good.reads {
			d := &faultyDisk{content: img, nth: nth, fault: fault}
			got, err := readDisk(d, "/dev/vda", int64(len(img)), int64(len(img)))
			if err == nil && d.reads == good.reads {
				t.Errorf("%s at reading %d: %+v", name, nth, got)
			}
		}
	}
}

// TestReadDiskOfAnotherSize: what the device says of its size is the host's
// word too. The image is as long as was measured; what one that grew has behind
// it does not count, and one that shrank is refused, as is one that only says
// that it is long enough.
func TestReadDiskOfAnotherSize(t *testing.T) {
	img, _, _ := testDisk(t)
	grown := append(bytes.Clone(img), make([]byte, 1<<20)...)
	for name, c := range map[string]struct {
		content []byte
		size    int64
		ok      bool
	}{
		"grown":             {grown, int64(len(grown)), true},
		"says that it grew": {img, int64(len(img)) + 4096, true},
		"says it is huge":   {img, 1 << 62, true},
		"shrunk":            {img[:len(img)-4096], int64(len(img)) - 4096, false},
		"shrunk, says not":  {img[:len(img)-4096], int64(len(img)), false},
		"says it shrank":    {img, int64(len(img)) - 512, false},
		"says it is empty":  {img, 0, false},
		"says it is less":   {img, -1, false},
	} {
		d, err := readDisk(bytes.NewReader(c.content), "/dev/vda", c.size, int64(len(img)))
		if (err == nil) != c.ok || c.ok && d.footerDigest != kbs.Sum384([]byte(footerJSON)) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
}

// TestLackingCipher: the console names the class and what helps.
func TestLackingCipher(t *testing.T) {
	err := lackingCipher(fmt.Errorf("loading table: %w", luks.ErrNoCipher))
	if err == nil || !strings.HasPrefix(err.Error(), "unsupported: ") || !strings.Contains(hint.Of(err), "--cipher aes-xts") {
		t.Errorf("%v (%s)", err, hint.Of(err))
	}
	if err := lackingCipher(unix.EIO); err != unix.EIO || lackingCipher(nil) != nil {
		t.Errorf("%v", err)
	}
}
