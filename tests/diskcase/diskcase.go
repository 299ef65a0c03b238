// Package diskcase is what TestInterop and the init of its guest say to each
// other: which disks there are, what must come of opening each, what did.
package diskcase

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"

	"github.com/ccrun/ccrun/luks"
)

const (
	// PlanPath is where the guest's initrd has the Plan, as JSON.
	PlanPath = "/interop/plan.json"
	// CryptsetupDir holds Debian's cryptsetup: "cryptsetup", its dynamic
	// loader "ld.so", and its libraries in "lib".
	CryptsetupDir = "/interop/cryptsetup"
	// ResultPort is the virtio port for Results, one JSON object a line.
	ResultPort = "io.ccrun.interop"
)

// Plan is the work of one boot.
type Plan struct {
	Cases []Case `json:"cases"`
	Bench []Case `json:"bench,omitempty"` // read beside each other, and timed
}

// Expect says what must come of opening a disk.
type Expect string

const (
	// Reads: the content is right, and a read-only device stays as it is.
	Reads Expect = "reads"
	// Writes: the same, then Writes are made, read back, and survive closing.
	Writes Expect = "writes"
	// Cut: the same, but the guest powers off with the disk open: what was
	// synced sits in the journal.
	Cut Expect = "cut"
	// LastSectorEIO: the last sector gives EIO and the first can be read.
	LastSectorEIO Expect = "last sector EIO"
	// WrongKeyEIO: opened with another volume key, no sector can be read.
	WrongKeyEIO Expect = "wrong key EIO"
	// Refused: opening fails with an error that says Case.Refusal.
	Refused Expect = "refused"
	// VolumeWrites: a volume is made, and files are written to it, each of them
	// acknowledged by a mark on the disk, until the guest ends in the midst of it.
	VolumeWrites Expect = "volume written"
	// VolumeReads: a volume has all files that were acknowledged, and takes more.
	VolumeReads Expect = "volume read"
)

// Case is one disk.
type Case struct {
	Name       string `json:"name"`
	Serial     string `json:"serial"` // of the virtio disk
	Passphrase string `json:"passphrase"`
	// Geometry is the measured one. With Format only SectorBytes counts.
	Geometry   luks.Geometry `json:"geometry"`
	Cryptsetup bool          `json:"cryptsetup"` // opens the disk instead of luks.Activate
	// Format: cryptsetup makes the disk, in the guest, and fills it with Content.
	Format   bool `json:"format"`
	ReadOnly bool `json:"read_only"`
	// Filesystem, in a Plan.Bench, is mounted, and its files are read instead
	// of the device.
	Filesystem string `json:"filesystem,omitempty"`
	// Written, in a Plan.Bench, has the device written instead of read: with
	// integrity as a scratch area under a key of its own, with the Geometry's cipher.
	Written bool `json:"written,omitempty"`
	// Pattern, in a Plan.Bench, has the device written and read in that way, as a
	// volume or, with Cryptsetup, as cryptsetup makes one of the same integrity.
	Pattern Pattern `json:"pattern,omitempty"`
	Expect  Expect  `json:"expect"`
	Refusal string  `json:"refusal,omitempty"`
	// Seed, of VolumeWrites, is the serial of a disk with an empty file system;
	// Acknowledged, of VolumeReads, how many files there must be.
	Seed         string `json:"seed,omitempty"`
	Acknowledged int    `json:"acknowledged,omitempty"`
	// Sums of the first PlainBytes as the disk comes and after Writes.
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"`
}

// Pattern is a way to use a device.
type Pattern string

// Patterns of a bench: the whole device in one go, or sectors of it anywhere.
const (
	SequentialWrite Pattern = "sequential write"
	SequentialRead  Pattern = "sequential read"
	RandomWrite     Pattern = "random write"
	RandomRead      Pattern = "random read"
)

// Patterns are all of them.
func Patterns() []Pattern {
	return []Pattern{SequentialWrite, SequentialRead, RandomWrite, RandomRead}
}

// Result is what came of a Case. The last one of a boot has the name Done.
type Result struct {
	Name   string `json:"name"`
	Error  string `json:"error,omitempty"`
	Millis int64  `json:"millis"`
	// Of a Plan.Bench: the bytes of one reading, and the shortest time it took.
	ReadBytes  int64 `json:"read_bytes,omitempty"`
	ReadMicros int64 `json:"read_micros,omitempty"`
}

// Done is the name of the result that ends a boot.
const Done = "done"

// Content is what a disk of n bytes holds at first: incompressible, so that
// no block can be taken for another, and the same on both sides.
func Content(n int64) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{'c', 'c', 'r', 'u', 'n'}).Read(b) // never fails
	return b
}

// Write is one write(2) that the guest makes.
type Write struct {
	Offset int64
	Data   []byte
}

const (
	sector = 4096
	run    = 4 << 20 // data between two runs of tags
)

// WritesFor are the writes to a device of n bytes, at least 6 MiB: single
// sectors at both ends and on both sides of a run of tags, and then a stretch
// several times as long as the journal, so that it wraps.
func WritesFor(n int64) []Write {
	var w []Write
	for i, offset := range []int64{0, 7 * sector, run - sector, run, n - sector} {
		w = append(w, Write{offset, bytes.Repeat([]byte{byte(i), 0xa5}, sector/2)})
	}
	const chunk = 64 * sector
	for offset := int64(run + 1<<20); offset+chunk < n-sector; offset += chunk {
		w = append(w, Write{offset, bytes.Repeat([]byte("0123456789abcdef"), chunk/16)})
	}
	return w
}

// CutWrites are the writes before a power cut: few, so that they fit in the
// journal and stay there.
func CutWrites(n int64) []Write { return WritesFor(n)[:5] }

// Written is content after writes.
func Written(content []byte, writes []Write) []byte {
	content = bytes.Clone(content)
	for _, w := range writes {
		copy(content[w.Offset:], w.Data)
	}
	return content
}

// VolumeFiles is how many files are written to a volume.
const VolumeFiles = 90

// VolumeFile is the content of one of them.
func VolumeFile(i int) []byte {
	b := make([]byte, 1+i*7919%(40<<10))
	_, _ = rand.NewChaCha8([32]byte{'v', byte(i), byte(i >> 8)}).Read(b) // never fails
	return b
}

// A Mark is one sector behind the volume's area, in which the guest says that so
// many files are there to stay.
const (
	MarkBytes = 4096
	markMagic = "ccrun acknowledged "
)

// Mark is a mark's content.
func Mark(files int) []byte {
	b := make([]byte, MarkBytes)
	copy(b, fmt.Sprintf("%s%06d\n", markMagic, files))
	return b
}

// ParseMark is the number in a mark; false for what is none.
func ParseMark(b []byte) (files int, ok bool) {
	_, err := fmt.Sscanf(string(b[:min(len(b), 64)]), markMagic+"%06d\n", &files)
	return files, err == nil
}

// Sum is SHA-256, in hex.
func Sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
