package tests

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/tests/diskcase"
)

// interopDisk is a disk before, in, and after the guest.
type interopDisk struct {
	diskcase.Case
	path    string
	vk      *luks.VolumeKey
	content []byte // decrypted; of a disk that the guest formats: unknown
	footer  []byte // what follows the segment
	before  string // sum of the file as the guest finds it
	bench   bool   // only reads are timed
	part    bool   // of another's case
	log     string // file for what the guest writes, in dm-log-writes' format
}

// interopUUID is fixed: nothing depends on it.
const interopUUID = "6d2e1f6a-3f57-4a47-9a0b-0d7c7f6f2a11"

// interopFooter stands behind a disk, as in a workload image. No stack may
// touch it.
var interopFooter = bytes.Repeat([]byte("FOOTER! "), 512)

// TestInterop opens our disks in a real kernel, by the guest agent's code and
// by cryptsetup, and cryptsetup's disks by the agent's code. Disk map:
//
//	header | segment: superblock, journal, (tags, data: 4 MiB)... | footer
//
// Every case is a disk of its own, so a case that goes wrong spoils no other.
func TestInterop(t *testing.T) {
	endToEnd(t)
	m := newInteropMachine(t)
	dir := t.TempDir()
	disks := []*interopDisk{builtDisk(t, dir)}
	for i, c := range interopCases() {
		c.Serial = fmt.Sprintf("interop%02d", i)
		disks = append(disks, newInteropDisk(t, dir, c))
	}
	var again []*interopDisk
	report := m.boot(t, simProcessor, disks)
	for _, d := range disks {
		t.Run(d.Name, func(t *testing.T) {
			report.want(t, d.Name)
			d.after(t)
		})
		if next := d.again(); next != nil {
			again = append(again, next)
		}
	}
	report = m.boot(t, noAESProcessor, again)
	for _, d := range again {
		t.Run(d.Name, func(t *testing.T) {
			report.want(t, d.Name)
			d.wantContent(t, d.content)
		})
	}
}

// again is the case that a second boot makes of the disk as the first left
// it, if any.
func (d *interopDisk) again() *interopDisk {
	next := *d
	next.Expect, next.Before = diskcase.Reads, d.After
	switch {
	case d.Expect == diskcase.Cut:
		next.Name = "journal replayed after the power cut"
	case d.Cryptsetup && d.Expect == diskcase.Writes:
		next.Name, next.Cryptsetup = "ours, written by cryptsetup", false
	case d.Cryptsetup && !d.ReadOnly:
		// cryptsetup maps the disk to its end, footer and all, and then
		// dm-integrity notes the greater length in the superblock.
		next.Name, next.Cryptsetup = "ours, footer made data by cryptsetup", false
		next.Expect, next.Refusal = diskcase.Refused, "dm-integrity superblock"
	default:
		return nil
	}
	next.content = diskcase.Written(d.content, d.writes())
	return &next
}

// interopCase is a Case in the making.
type interopCase struct {
	diskcase.Case
	bytes int64 // of content
	plain bool  // without integrity
	aegis bool  // with AEGIS-128
	bare  bool  // without footer
	spoil int64 // offset of the byte that the host changes, from the segment's start
	swap  bool  // the host swaps the last two sectors
	tags  bool  // and their tags
}

// fromEnd makes a spoil count from the segment's end, where the last sector is.
const fromEnd = 1 << 40

func interopCases() []interopCase {
	type c = diskcase.Case
	sectors512 := luks.Geometry{SectorBytes: 512}
	return []interopCase{
		{Case: c{Name: "ours, written", Expect: diskcase.Writes}, bytes: 9<<20 + 8192},
		{Case: c{Name: "ours, read-only", Expect: diskcase.Reads, ReadOnly: true}, bytes: 9<<20 + 4096},
		{Case: c{Name: "ours, plain", Expect: diskcase.Writes}, bytes: 6 << 20, plain: true},
		{Case: c{Name: "ours, 512-byte sectors", Expect: diskcase.Writes, Geometry: sectors512}, bytes: 6 << 20},
		{Case: c{Name: "ciphertext byte flipped", Expect: diskcase.LastSectorEIO, ReadOnly: true}, bytes: 5 << 20, spoil: fromEnd - 100},
		{Case: c{Name: "sectors swapped", Expect: diskcase.LastSectorEIO, ReadOnly: true}, bytes: 5 << 20, swap: true},
		{Case: c{Name: "sectors swapped with their tags", Expect: diskcase.LastSectorEIO, ReadOnly: true}, bytes: 5 << 20, swap: true, tags: true},
		{Case: c{Name: "another volume key", Expect: diskcase.WrongKeyEIO, ReadOnly: true}, bytes: 1 << 20},
		// Byte 9 of the superblock is log2_interleave_sectors.
		{Case: c{Name: "another superblock", Expect: diskcase.Refused, Refusal: "dm-integrity superblock"}, bytes: 1 << 20, spoil: 9},
		{Case: c{Name: "ours by cryptsetup, written", Cryptsetup: true, Expect: diskcase.Writes}, bytes: 6<<20 + 4096, bare: true},
		{Case: c{Name: "ours by cryptsetup, footer", Cryptsetup: true, Expect: diskcase.Reads}, bytes: 1 << 20},
		{Case: c{Name: "ours by cryptsetup, plain", Cryptsetup: true, Expect: diskcase.Reads, ReadOnly: true}, bytes: 1 << 20, plain: true},
		{Case: c{Name: "cryptsetup's", Format: true, Expect: diskcase.Writes}, bytes: 23 << 20},
		{Case: c{Name: "cryptsetup's, 512-byte sectors", Format: true, Expect: diskcase.Writes, Geometry: sectors512}, bytes: 23 << 20},
		{Case: c{Name: "AEGIS, read-only", Expect: diskcase.Reads, ReadOnly: true}, bytes: 9<<20 + 4096, aegis: true},
		{Case: c{Name: "AEGIS, 512-byte sectors", Expect: diskcase.Reads, ReadOnly: true, Geometry: sectors512}, bytes: 5 << 20, aegis: true},
		{Case: c{Name: "AEGIS, ciphertext byte flipped", Expect: diskcase.LastSectorEIO, ReadOnly: true}, bytes: 5 << 20, aegis: true, spoil: fromEnd - 100},
		{Case: c{Name: "AEGIS, sectors swapped with their tags", Expect: diskcase.LastSectorEIO, ReadOnly: true}, bytes: 5 << 20, aegis: true, swap: true, tags: true},
		{Case: c{Name: "AEGIS, another volume key", Expect: diskcase.WrongKeyEIO, ReadOnly: true}, bytes: 1 << 20, aegis: true},
		{Case: c{Name: "AEGIS by cryptsetup", Cryptsetup: true, Expect: diskcase.Reads, ReadOnly: true}, bytes: 1 << 20, aegis: true, bare: true},
		// Last, since its devices stay open.
		{Case: c{Name: "power cut", Expect: diskcase.Cut}, bytes: 6 << 20},
	}
}

func newInteropDisk(t *testing.T, dir string, ic interopCase) *interopDisk {
	t.Helper()
	d := &interopDisk{Case: ic.Case, path: filepath.Join(dir, ic.Serial+".img")}
	var key [32]byte
	_, _ = rand.Read(key[:])
	d.Passphrase = hex.EncodeToString(key[:])
	cipher := luks.AESXTS
	if ic.aegis {
		cipher = luks.AEGIS128
	}
	g, err := luks.NewGeometry(interopUUID, ic.bytes, cipher, !ic.plain)
	if err != nil {
		t.Fatal(err)
	}
	if ic.Geometry.SectorBytes != 0 {
		g.SectorBytes = ic.Geometry.SectorBytes
	}
	d.Geometry = g
	if d.Format {
		write(t, d.path, make([]byte, ic.bytes))
		return d
	}
	d.content = diskcase.Content(ic.bytes)
	d.Before, d.After = diskcase.Sum(d.content), diskcase.Sum(diskcase.Written(d.content, d.writes()))
	b := d.encrypt(t)
	switch {
	case ic.spoil > fromEnd/2:
		b[g.TotalBytes()-(fromEnd-ic.spoil)] ^= 1
	case ic.spoil > 0:
		b[g.DataOffsetBytes+ic.spoil] ^= 1
	}
	if ic.swap {
		swapLast(b, g, ic.tags)
	}
	if !ic.bare {
		d.footer = interopFooter
	}
	b = append(b, d.footer...)
	d.before = diskcase.Sum(b)
	write(t, d.path, b)
	return d
}

// swapLast exchanges a disk's last two sectors, and their tags: both are what
// was once written, only elsewhere. The tags of up to 4 MiB stand before them.
func swapLast(disk []byte, g luks.Geometry, tags bool) {
	tag := int64(g.Integrity.TagBytes)
	runTags := 4 << 20 / 4096 * tag
	swap := func(at, n int64) {
		first := bytes.Clone(disk[at : at+n])
		copy(disk[at:], disk[at+n:at+2*n])
		copy(disk[at+n:], first)
	}
	end := g.TotalBytes()
	swap(end-2*4096, 4096)
	if tags {
		data := g.PlainBytes % (4 << 20)
		swap(end-data-runTags+(data/4096-2)*tag, tag)
	}
}

// writes are those that the guest makes.
func (d *interopDisk) writes() []diskcase.Write {
	switch d.Expect {
	case diskcase.Writes:
		return diskcase.WritesFor(d.Geometry.PlainBytes)
	case diskcase.Cut:
		return diskcase.CutWrites(d.Geometry.PlainBytes)
	}
	return nil
}

// encrypt returns the disk that our writer makes of the content.
func (d *interopDisk) encrypt(t *testing.T) []byte {
	t.Helper()
	var err error
	if d.vk, err = luks.NewVolumeKey(rand.Reader, d.Geometry); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := luks.NewWriter(&out, d.Geometry, d.vk, secret.New([]byte(d.Passphrase)), luks.WriterOptions{KDF: luks.FastKDF(), Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(d.content)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// after looks at the disk from outside, once the guest is gone.
func (d *interopDisk) after(t *testing.T) {
	t.Helper()
	switch {
	case d.Format:
		d.adoptHeader(t)
		content := diskcase.Content(d.Geometry.PlainBytes)
		d.wantContent(t, diskcase.Written(content, d.writes()))
	case d.ReadOnly || d.Expect == diskcase.Refused:
		b, err := os.ReadFile(d.path)
		if err != nil {
			t.Fatal(err)
		}
		if diskcase.Sum(b) != d.before {
			t.Error("the disk was changed")
		}
	case d.Expect == diskcase.Cut:
		// The premise of the second boot: only the journal has the writes.
		if got, err := d.decrypted(t); err == nil && diskcase.Sum(got) == d.After {
			t.Error("the journal was written back before the power cut: nothing is left to replay")
		}
	default:
		d.wantContent(t, diskcase.Written(d.content, d.writes()))
	}
}

// adoptHeader takes geometry and key from the header that cryptsetup wrote.
func (d *interopDisk) adoptHeader(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := luks.ReadHeader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if d.Geometry, err = h.Geometry(); err != nil {
		t.Fatal(err)
	}
	if d.vk, err = h.Unlock(secret.New([]byte(d.Passphrase))); err != nil {
		t.Fatal(err)
	}
}

// wantContent reads what the kernel encrypted with our reader, and the footer.
func (d *interopDisk) wantContent(t *testing.T, want []byte) {
	t.Helper()
	got, err := d.decrypted(t)
	if err != nil {
		t.Fatalf("reading in user space: %v", err)
	}
	for i := 0; i < len(want); i += 4096 {
		if end := min(i+4096, len(want)); !bytes.Equal(got[i:end], want[i:end]) {
			t.Fatalf("content differs at %d", i)
		}
	}
	b, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(b, d.footer) {
		t.Error("the footer was changed")
	}
}

func (d *interopDisk) decrypted(t *testing.T) ([]byte, error) {
	t.Helper()
	f, err := os.Open(d.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := luks.NewReader(f, d.Geometry, d.vk)
	if err != nil {
		t.Fatal(err)
	}
	return io.ReadAll(io.NewSectionReader(r, 0, d.Geometry.PlainBytes))
}
