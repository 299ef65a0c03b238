package rpmdb

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
)

// sqliteSample was written by rpm 4.18 (Debian 12): two packages that rpmbuild
// made, one with a header of several pages.
func sqliteSample(t testing.TB) []byte {
	t.Helper()
	f, err := os.Open("testdata/rpmdb.sqlite.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// header makes one of strings, and an epoch if it is not negative.
func header(name, version, release, arch string, epoch, padding int) []byte {
	var index, data []byte
	add := func(tag, kind uint32, b []byte) {
		for _, v := range []uint32{tag, kind, uint32(len(data)), 1} {
			index = binary.BigEndian.AppendUint32(index, v)
		}
		data = append(data, b...)
	}
	if epoch >= 0 {
		add(tagEpoch, typeInt32, binary.BigEndian.AppendUint32(nil, uint32(epoch)))
	}
	for _, s := range []struct {
		tag uint32
		s   string
	}{{tagName, name}, {tagVersion, version}, {tagRelease, release}, {tagArch, arch}, {1005, string(bytes.Repeat([]byte("x"), padding))}} {
		add(s.tag, typeString, append([]byte(s.s), 0))
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(index)/16))
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(append(b, index...), data...)
}

func sampleHeaders() [][]byte {
	return [][]byte{header("tiny", "1.2", "3", "noarch", 4, 0), header("gpg-pubkey", "1", "2", "", -1, 0), header("large", "5", "6~rc1", "x86_64", -1, 9000)}
}

// ndbSample is a database in rpm's own format.
func ndbSample() []byte {
	b := make([]byte, ndbPage)
	copy(b, "RpmP")
	binary.LittleEndian.PutUint32(b[12:], 1)
	for i := 32; i < ndbPage; i += ndbSlot {
		copy(b[i:], "Slot")
	}
	for i, h := range sampleHeaders() {
		slot := b[32+(i+1)*ndbSlot:] // the first stays free
		binary.LittleEndian.PutUint32(slot[4:], uint32(i+1))
		binary.LittleEndian.PutUint32(slot[8:], uint32(len(b)/ndbUnit))
		blob := append([]byte("BlbS"), make([]byte, 12)...)
		binary.LittleEndian.PutUint32(blob[4:], uint32(i+1))
		binary.LittleEndian.PutUint32(blob[12:], uint32(len(h)))
		b = append(append(b, blob...), h...)
		b = append(b, make([]byte, -len(b)&(ndbUnit-1))...)
	}
	return b
}

// bdbSample is a hash of one page, with large values on others.
func bdbSample(o binary.ByteOrder) []byte {
	const size = 4096
	pages := [][]byte{make([]byte, size), make([]byte, size)}
	o.PutUint32(pages[0][12:], bdbMagic)
	o.PutUint32(pages[0][20:], size)
	pages[0][25], pages[1][25] = bdbMeta, bdbHash
	end, n := size, 0
	item := func(b []byte) {
		end -= len(b)
		copy(pages[1][end:], b)
		o.PutUint16(pages[1][bdbHeader+2*n:], uint16(end))
		n++
	}
	item([]byte{bdbItemHere, 0, 0, 0, 0}) // rpm's counter
	item([]byte{bdbItemHere, 9, 0, 0, 0})
	for i, h := range sampleHeaders() {
		item([]byte{bdbItemHere, byte(i), 0, 0, 0})
		if len(h) < 500 {
			item(append([]byte{bdbItemHere}, h...))
			continue
		}
		ref := make([]byte, 12)
		ref[0] = bdbItemOffPage
		o.PutUint32(ref[4:], uint32(len(pages)))
		o.PutUint32(ref[8:], uint32(len(h)))
		item(ref)
		for len(h) > 0 {
			p := make([]byte, size)
			k := copy(p[bdbHeader:], h)
			p[25], h = bdbOverflow, h[k:]
			o.PutUint16(p[22:], uint16(k))
			if len(h) > 0 {
				o.PutUint32(p[16:], uint32(len(pages)+1))
			}
			pages = append(pages, p)
		}
	}
	o.PutUint16(pages[1][20:], uint16(n))
	return bytes.Join(pages, nil)
}

func read(b []byte) (list []Package, err error) {
	err = Read(bytes.NewReader(b), int64(len(b)), func(p Package) error {
		list = append(list, p)
		return nil
	})
	return list, err
}

func TestRead(t *testing.T) {
	tiny := Package{Name: "tiny", Version: "1.2", Release: "3", Arch: "noarch", Epoch: 4, HasEpoch: true}
	large := Package{Name: "large", Version: "5", Release: "6~rc1", Arch: "x86_64"}
	for name, b := range map[string][]byte{
		"sqlite": sqliteSample(t), "ndb": ndbSample(), "bdb": bdbSample(binary.LittleEndian), "bdb, big endian": bdbSample(binary.BigEndian),
	} {
		got, err := read(b)
		slices.SortFunc(got, func(a, b Package) int { return len(b.Version) - len(a.Version) })
		if err != nil || !slices.Equal(got, []Package{tiny, large}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := read([]byte("something else")); !errors.Is(err, ErrUnknownFormat) {
		t.Errorf("no database: %v", err)
	}
}

// TestDamaged: page rings, endless trees and lengths that lie.
func TestDamaged(t *testing.T) {
	at32 := func(b []byte, off int, v uint32) []byte {
		b = bytes.Clone(b)
		binary.LittleEndian.PutUint32(b[off:], v)
		return b
	}
	ring := bdbSample(binary.LittleEndian)
	binary.LittleEndian.PutUint32(ring[2*4096+16:], 2)
	sq := sqliteSample(t)
	page := int(binary.BigEndian.Uint16(sq[16:]))
	tree := bytes.Clone(sq)
	for off := page; off+page <= len(tree); off += page { // every page says that page 2 is below it
		tree[off], tree[off+3], tree[off+4] = 5, 0, 0
		binary.BigEndian.PutUint32(tree[off+8:], 2)
	}
	for name, b := range map[string][]byte{
		"sqlite schema of shared pages": sharedSchema(sq, page), "bdb ring": ring, "sqlite ring": tree, "sqlite cut": sq[:page+100],
		"ndb beyond the end": at32(ndbSample(), 32+ndbSlot+8, 1<<30), "ndb pages": at32(ndbSample(), 12, 1<<31),
		"bdb page size": at32(bdbSample(binary.LittleEndian), 20, 3), "bdb length": at32(bdbSample(binary.LittleEndian), 20, 65536),
	} {
		if list, err := read(b); err == nil && len(list) > 0 {
			t.Errorf("%s: read as %d packages", name, len(list))
		}
	}
	shared := ndbSample() // every slot points to the same large blob
	large := shared[32+3*ndbSlot : 32+4*ndbSlot]
	for i := 32; i < ndbPage; i += ndbSlot {
		copy(shared[i:], large)
	}
	if _, err := read(shared); !errors.Is(err, errDamaged) {
		t.Errorf("shared blob: %v", err)
	}
}

// sharedSchema puts levels of pages above the schema's first one, each of which
// points 500 times to the next: 500^17 rows in 90 kB, which SQLite itself reads.
func sharedSchema(db []byte, size int) []byte {
	const levels, children = 17, 500
	db = bytes.Clone(db)
	inner := func(page []byte, child int) {
		clear(page)
		page[0] = 5
		binary.BigEndian.PutUint16(page[3:], children)
		binary.BigEndian.PutUint32(page[8:], uint32(child))
		for i := range children {
			at := size - 5*(i+1)
			binary.BigEndian.PutUint32(page[at:], uint32(child))
			binary.BigEndian.PutUint16(page[12+2*i:], uint16(at))
		}
	}
	for range levels {
		db = append(db, make([]byte, size)...)
		inner(db[len(db)-size:], len(db)/size+1)
	}
	leaf := append(make([]byte, 0, size), db[100:108]...) // page 1 after the file's header
	db = append(append(db, leaf...), db[108:100+size]...)
	root := make([]byte, size)
	inner(root, len(db)/size-levels)
	copy(db[100:], root[:size-100])
	return db
}

func FuzzRead(f *testing.F) {
	f.Add(sqliteSample(f))
	f.Add(ndbSample())
	f.Add(bdbSample(binary.LittleEndian))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		_ = Read(bytes.NewReader(b), int64(len(b)), func(p Package) error {
			if p.Name == "" {
				t.Fatal("package without a name")
			}
			if total++; total > len(b) {
				t.Fatal("more packages than bytes")
			}
			return nil
		})
	})
}
