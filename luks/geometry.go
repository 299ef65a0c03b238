// Package luks writes and opens LUKS2 disks with authenticated encryption.
// It knows nothing of TEEs or containers. The format is the LUKS2 On-Disk
// Format Specification 1.1.x; cryptsetup opens the disks it writes, and it
// opens cryptsetup's.
//
// It is code of our own because what there is does not fit either side of a
// launch. A build has no privileges and no second copy of the disk to spare:
// it must encrypt a stream in order, dm-integrity's tags and journal included,
// and cryptsetup makes those through the kernel, as root. The guest must not
// follow a header that its host wrote: it uses the measured Geometry, takes
// nothing but the keyslot from a copy in its own memory, and has no room for
// libcryptsetup and what that links. Of the packages in Go, luksy writes no
// integrity, anatol/luks.go takes cipher and sizes from the header, and
// go-blockdevice runs cryptsetup.
package luks

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/bounded"
)

// Geometry is everything that decides how a disk's bytes are decrypted,
// keyslots excepted. It is measured at launch, so that a guest never takes
// any of it from the (host-controlled) header. The zero value is refused.
type Geometry struct {
	UUID            string     `json:"uuid"`
	Cipher          string     `json:"cipher"`            // LUKS2's name: "aes-xts-plain64" or "aegis128-plain64"
	VolumeKeyBytes  int        `json:"volume_key_bytes"`  // cipher key and integrity key together
	SectorBytes     int        `json:"sector_bytes"`      // encryption sector: 4096 (512 for foreign disks)
	DataOffsetBytes int64      `json:"data_offset_bytes"` // start of the segment in the disk file
	PlainBytes      int64      `json:"plain_bytes"`       // what the opened device holds
	Integrity       *Integrity `json:"integrity,omitempty"`

	// randomIV: each write of a sector draws an IV, which is stored with the
	// tag. Only ScratchGeometry sets it; no JSON can.
	randomIV bool
}

// Integrity is the dm-integrity layout under the cipher. Nil means plain
// dm-crypt without authentication.
type Integrity struct {
	Algorithm             string `json:"algorithm"` // LUKS2's name: "hmac(sha256)" with aes-xts-plain64, "aead" with aegis128-plain64
	TagBytes              int    `json:"tag_bytes"` // per sector
	JournalSections       int    `json:"journal_sections"`
	Log2InterleaveSectors int    `json:"log2_interleave_sectors"` // in 512-byte sectors
}

const (
	ivBytes       = 16  // stored beside the tag, with randomIV
	dmSectorBytes = 512 // device mapper's unit, whatever the encryption sector
	alignBytes    = 4096
)

// Bounds of a geometry. They keep all arithmetic on sizes far from overflow.
const (
	minDataOffsetBytes = 2*minHeaderBytes + alignBytes
	maxDataOffsetBytes = 256 << 20
	maxPlainBytes      = 1 << 44 // 16 TiB
	maxJournalBytes    = 64 << 20
	minLog2Interleave  = 3  // dm-integrity's MIN_LOG2_INTERLEAVE_SECTORS
	maxLog2Interleave  = 17 // 64 MiB of data per run; dm-integrity allows 31
)

// What NewGeometry chooses. The header area holds two 16 KiB metadata
// copies and keyslots for two 96-byte keys. Four MiB of data follow each run
// of tags: one run is what the writer must hold back before it can emit.
const (
	defaultDataOffsetBytes = 1 << 20
	defaultLog2Interleave  = 13
	minDefaultJournalBytes = 512 << 10
	maxDefaultJournalBytes = 4 << 20
)

const lowerHex, anyHex = "0123456789abcdef", "0123456789abcdefABCDEF"

// validUUID wants 8-4-4-4-12 digits.
func validUUID(s, digits string) bool {
	parts := strings.Split(s, "-")
	if len(s) != 36 || len(parts) != 5 {
		return false
	}
	for i, n := range [...]int{8, 4, 4, 4, 12} {
		if len(parts[i]) != n || !bounded.Name(parts[i], n, digits, digits) {
			return false
		}
	}
	return true
}

// NewGeometry lays out a disk for plainBytes of content (a multiple of 4096)
// with 4096-byte sectors and one of Ciphers; with integrity it has tags and a
// journal of 1/128 of the content, between 0.5 and 4 MiB. uuid is in lower case.
func NewGeometry(uuid string, plainBytes int64, cipher string, integrity bool) (Geometry, error) {
	at := slices.IndexFunc(suites(), func(s suite) bool { return s.name == cipher && (s.tagBytes > 0) == integrity })
	if at < 0 {
		return Geometry{}, fmt.Errorf("cipher %.40q with integrity tags: %t, expected one of %v, and %s with tags", cipher, integrity, Ciphers(), AEGIS128)
	}
	s := suites()[at]
	g := Geometry{
		UUID:            uuid,
		Cipher:          s.cipher,
		VolumeKeyBytes:  s.keyBytes,
		SectorBytes:     4096,
		DataOffsetBytes: defaultDataOffsetBytes,
		PlainBytes:      plainBytes,
	}
	if integrity {
		g.Integrity = &Integrity{
			Algorithm:             s.integrity,
			TagBytes:              s.tagBytes,
			Log2InterleaveSectors: defaultLog2Interleave,
		}
		g.chooseJournal()
	}
	return g, g.Validate()
}

func (g *Geometry) chooseJournal() {
	bytes := min(max(g.PlainBytes/128, minDefaultJournalBytes), maxDefaultJournalBytes)
	g.Integrity.JournalSections = int(bytes / (journalSectionSectors(g.SectorBytes, g.Integrity.TagBytes) * dmSectorBytes))
}

// Validate accepts exactly what this package can write and open.
func (g *Geometry) Validate() error {
	s, err := g.suite()
	switch {
	case !validUUID(g.UUID, lowerHex):
		return fmt.Errorf("disk UUID %.40q, expected the lower-case 8-4-4-4-12 form", g.UUID)
	case err != nil:
		return err
	case g.SectorBytes != 4096 && g.SectorBytes != 512:
		return fmt.Errorf("sectors of %d bytes, expected 4096 or 512", g.SectorBytes)
	case g.VolumeKeyBytes != s.keyBytes:
		return fmt.Errorf("volume key of %d bytes, expected %d", g.VolumeKeyBytes, s.keyBytes)
	case g.DataOffsetBytes < minDataOffsetBytes || g.DataOffsetBytes > maxDataOffsetBytes || g.DataOffsetBytes%alignBytes != 0:
		return fmt.Errorf("data offset %d, expected a multiple of %d from %d to %d", g.DataOffsetBytes, alignBytes, minDataOffsetBytes, maxDataOffsetBytes)
	case g.PlainBytes <= 0 || g.PlainBytes > maxPlainBytes || g.PlainBytes%alignBytes != 0:
		return fmt.Errorf("%d bytes of content, expected a multiple of %d up to %d", g.PlainBytes, alignBytes, int64(maxPlainBytes))
	}
	if g.Integrity == nil {
		if g.randomIV {
			return errors.New("stored IVs without integrity tags")
		}
		return nil
	}
	if g.randomIV {
		s.tagBytes += ivBytes
	}
	return g.Integrity.validate(g.SectorBytes, s.tagBytes)
}

func (i *Integrity) validate(sectorBytes, tagBytes int) error {
	switch {
	case i.TagBytes != tagBytes:
		return fmt.Errorf("integrity tags of %d bytes, expected %d", i.TagBytes, tagBytes)
	case i.Log2InterleaveSectors < minLog2Interleave || i.Log2InterleaveSectors > maxLog2Interleave:
		return fmt.Errorf("interleave of 2^%d sectors, expected an exponent from %d to %d", i.Log2InterleaveSectors, minLog2Interleave, maxLog2Interleave)
	}
	limit := int64(maxJournalBytes) / (journalSectionSectors(sectorBytes, i.TagBytes) * dmSectorBytes)
	if i.JournalSections < 1 || int64(i.JournalSections) > limit {
		return fmt.Errorf("%d journal sections, expected 1 to %d", i.JournalSections, limit)
	}
	return nil
}

// TotalBytes is the length of the disk payload: header, integrity metadata,
// journal and data, up to the last data sector. 0 if the geometry is invalid.
func (g *Geometry) TotalBytes() int64 {
	if n := g.SegmentBytes(); n > 0 {
		return g.DataOffsetBytes + n
	}
	return 0
}

// SegmentBytes is the length of the segment alone: what follows
// DataOffsetBytes. 0 if the geometry is invalid.
func (g *Geometry) SegmentBytes() int64 {
	switch {
	case g.Validate() != nil:
		return 0
	case g.Integrity == nil:
		return g.PlainBytes
	}
	return g.layout().dataOffset(g.PlainBytes-alignBytes) + alignBytes
}

// CipherName is the one of Ciphers that a geometry has; empty if it is invalid.
func (g *Geometry) CipherName() string {
	s, _ := g.suite()
	return s.name
}

// suite is the one of a geometry.
func (g *Geometry) suite() (suite, error) {
	integrity := ""
	if g.Integrity != nil {
		if integrity = g.Integrity.Algorithm; integrity == "" {
			return suite{}, fmt.Errorf("disk with tags of no algorithm")
		}
	}
	return findSuite(g.Cipher, integrity)
}
