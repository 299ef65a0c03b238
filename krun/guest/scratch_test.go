package guest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
)

// scratchArea has room bytes behind an image of 8192.
func scratchArea(t *testing.T, room int64) (area, *luks.VolumeKey) {
	t.Helper()
	_, _, vk := testDisk(t)
	path := filepath.Join(t.TempDir(), "disk")
	if err := errors.Join(os.WriteFile(path, bytes.Repeat([]byte("image"), 8192)[:8192], 0o600), os.Truncate(path, 8192+room)); err != nil {
		t.Fatal(err)
	}
	return area{
		image: testGeometry(t, luks.AESXTS),
		place: luks.Place{Device: path, StartBytes: 8192}, room: room, identity: kbs.Sum384([]byte("identity")),
		rule: krun.Scratch{Kind: krun.ScratchDisk, Bytes: krun.MinScratchBytes, Damaged: krun.DamagedReplace},
	}, vk
}

func testGeometry(t testing.TB, cipher string) luks.Geometry {
	t.Helper()
	g, err := luks.NewGeometry("8392b074-a42c-4b49-9b3e-8cfb0429ff8c", 1<<20, cipher, true)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func scratchRoom(t *testing.T) int64 {
	t.Helper()
	g, err := krun.Scratch{Kind: krun.ScratchDisk, Bytes: krun.MinScratchBytes}.Geometry(testGeometry(t, luks.AESXTS))
	if err != nil {
		t.Fatal(err)
	}
	return g.TotalBytes()
}

// TestScratchKeyIsKept: what one start commits, the next one opens, and no other
// image's guest does.
func TestScratchKeyIsKept(t *testing.T) {
	a, vk := scratchArea(t, scratchRoom(t)+4096) // grown: what is too much is not looked at
	first, err := readScratch(vk, a)
	if err != nil || first.kept != nil || first.damaged != nil {
		t.Fatalf("unused area: %+v, %v", first, err)
	}
	again, err := readScratch(vk, a)
	if err != nil || again.fresh.Digest() == first.fresh.Digest() || bytes.Equal(again.header, first.header) {
		t.Fatalf("two starts draw one key: %v", err)
	}
	if err := errors.Join(first.writeEmpty(), first.commit()); err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(a.place.Device)
	if err != nil || !bytes.Equal(image[:8192], bytes.Repeat([]byte("image"), 8192)[:8192]) {
		t.Fatalf("the image was written to (%v)", err)
	}
	second, err := readScratch(vk, a)
	if err != nil || second.kept == nil || second.kept.Digest() != first.fresh.Digest() {
		t.Fatalf("the key is not kept: %+v, %v", second, err)
	}
	if second.fresh.Digest() == second.kept.Digest() {
		t.Error("an area that takes another's place gets its key")
	}
	second.wipe()
	if second.kept.Subkey("x").Len()+second.fresh.Subkey("x").Len() != 0 {
		t.Error("keys are left")
	}
	a.identity[0] ^= 1
	if other, err := readScratch(vk, a); err != nil || other.kept != nil || !errors.Is(other.damaged, errNotScratch) {
		t.Errorf("another identity's guest: %+v, %v", other, err)
	}
}

// TestScratchHeaderIsHostile: whatever the host makes of a header, the key is the
// one that a guest put there, or none.
func TestScratchHeaderIsHostile(t *testing.T) {
	a, vk := scratchArea(t, scratchRoom(t))
	s, err := readScratch(vk, a)
	if err != nil {
		t.Fatal(err)
	}
	_, _, otherImage := testDisk(t)
	otherHeader, err := sealScratchHeader(rand.Reader, otherImage, a.context(), s.fresh)
	if err != nil {
		t.Fatal(err)
	}
	end := len(scratchMagic) + luks.WrappedBytes(s.geometry)
	for name, header := range map[string][]byte{
		"zeros":         make([]byte, scratchHeaderBytes),
		"empty":         nil,
		"cut":           s.header[:scratchHeaderBytes-1],
		"grown":         append(bytes.Clone(s.header), 0),
		"other image's": otherHeader,
		"no magic":      append(make([]byte, len(scratchMagic)), s.header[len(scratchMagic):]...),
		"bare magic":    append([]byte(scratchMagic), make([]byte, scratchHeaderBytes-len(scratchMagic))...),
	} {
		if key, err := openScratchHeader(header, vk, a.context(), s.geometry); !errors.Is(err, errNotScratch) || key != nil {
			t.Errorf("%s: %v, %v", name, key, err)
		}
	}
	for i := range end + 64 {
		flipped := bytes.Clone(s.header)
		flipped[i] ^= 0x80
		if key, err := openScratchHeader(flipped, vk, a.context(), s.geometry); !errors.Is(err, errNotScratch) || key != nil {
			t.Fatalf("bit flipped in byte %d: %v, %v", i, key, err)
		}
	}
}

// TestScratchOfEverySize: a disk without room is what the owner says it is, and a
// cut one never opens.
func TestScratchOfEverySize(t *testing.T) {
	full := scratchRoom(t)
	for name, c := range map[string]struct {
		room    int64
		damaged string
		want    string // of the error
	}{
		"none":            {0, krun.DamagedReplace, ""},
		"none, refused":   {0, krun.DamagedRefuse, "added no scratch area"},
		"a sector":        {4096, krun.DamagedReplace, "it was cut"},
		"a sector less":   {full - 4096, krun.DamagedReplace, "it was cut"},
		"less, refused":   {full - 4096, krun.DamagedRefuse, "it was cut"},
		"as it should be": {full, krun.DamagedRefuse, ""},
		"more":            {full + 1<<20, krun.DamagedRefuse, ""},
	} {
		a, vk := scratchArea(t, c.room)
		a.rule.Damaged = c.damaged
		said := false
		o := opened{say: func(string) { said = true }}
		err := o.openScratch(vk, a)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
		if (o.scratch != nil) != (c.room >= full) || said != (c.room == 0 && err == nil) {
			t.Errorf("%s: scratch %v, said %v", name, o.scratch, said)
		}
	}
	a, vk := scratchArea(t, full)
	a.rule = krun.Scratch{Kind: krun.ScratchNone}
	var none opened
	if err := none.openScratch(vk, a); err != nil || none.scratch != nil {
		t.Errorf("none wanted: %v, %v", none.scratch, err)
	}
}

// TestDamagedScratchIsRefused before anything of it is touched, where the owner
// wants that.
func TestDamagedScratchIsRefused(t *testing.T) {
	o := opened{scratch: &scratch{damaged: errNotScratch}}
	if err := o.mountScratch(krun.DamagedRefuse); !errors.Is(err, errNotScratch) {
		t.Errorf("%v", err)
	}
}

func FuzzScratchHeader(f *testing.F) {
	g, err := luks.ScratchGeometry(testGeometry(f, luks.AESXTS), krun.MinScratchBytes)
	if err != nil {
		f.Fatal(err)
	}
	vk, err := luks.NewVolumeKey(rand.Reader, g)
	if err != nil {
		f.Fatal(err)
	}
	good, err := sealScratchHeader(rand.Reader, vk, []byte("c"), vk)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if key, err := openScratchHeader(b, vk, []byte("c"), g); err == nil && (key == nil || !bytes.Equal(b, good)) {
			t.Fatalf("accepted %x", b)
		}
	})
}
