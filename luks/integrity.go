package luks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
)

// The dm-integrity superblock, little endian (struct superblock).
const (
	superblockMagic        = "integrt\x00"
	superblockVersion      = 4 // SB_VERSION_4, because of the flag
	superblockFixedPadding = 0x8
	superblockUsedBytes    = 64
	// log2BitmapSectors is what the kernel starts from and raises on large
	// disks; only its bitmap mode, which we do not use, looks at it.
	log2BitmapSectors      = 15
	superblockBitmapOffset = 29
	// journalCommitID is commit_ids[0] of a journal without MAC.
	journalCommitID = 0x1111111111111111
)

// superblock is the first 4096 bytes of the segment.
func (g *Geometry) superblock() []byte {
	b := make([]byte, superblockSectors*dmSectorBytes)
	copy(b, superblockMagic)
	b[8] = superblockVersion
	b[9] = byte(g.Integrity.Log2InterleaveSectors)
	binary.LittleEndian.PutUint16(b[10:], uint16(g.Integrity.TagBytes))
	binary.LittleEndian.PutUint32(b[12:], uint32(g.Integrity.JournalSections))
	binary.LittleEndian.PutUint64(b[16:], uint64(g.PlainBytes/dmSectorBytes))
	binary.LittleEndian.PutUint32(b[24:], superblockFixedPadding)
	b[28] = byte(bits.TrailingZeros(uint(g.SectorBytes / dmSectorBytes)))
	b[superblockBitmapOffset] = log2BitmapSectors - b[28]
	return b
}

// parseSuperblock reads what superblock writes into g, for inspection of a
// disk made elsewhere. It does not name the algorithm. The caller validates g.
func parseSuperblock(b []byte, g *Geometry) error {
	switch {
	case len(b) < superblockUsedBytes || string(b[:8]) != superblockMagic:
		return errors.New("no dm-integrity superblock at the start of the segment")
	case b[8] != superblockVersion || binary.LittleEndian.Uint32(b[24:]) != superblockFixedPadding:
		return fmt.Errorf("dm-integrity superblock version %d flags %#x, expected %d and %#x",
			b[8], binary.LittleEndian.Uint32(b[24:]), superblockVersion, superblockFixedPadding)
	case b[28] > 3 || dmSectorBytes<<b[28] != g.SectorBytes:
		return fmt.Errorf("dm-integrity blocks of 2^%d sectors do not match sectors of %d bytes", b[28], g.SectorBytes)
	}
	sectors, sections := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint32(b[12:])
	if sectors > maxPlainBytes/dmSectorBytes || sections > maxJournalBytes {
		return fmt.Errorf("dm-integrity superblock with %d sectors and %d journal sections is out of bounds", sectors, sections)
	}
	g.PlainBytes = int64(sectors) * dmSectorBytes
	g.Integrity = &Integrity{
		TagBytes:              int(binary.LittleEndian.Uint16(b[10:])),
		JournalSections:       int(sections),
		Log2InterleaveSectors: int(b[9]),
	}
	return nil
}

// writeJournal emits an empty journal as the kernel's init_journal does. It
// cannot be left zero: find_commit_seq takes an unknown commit id for an I/O
// error and the device stays failed.
func (g *Geometry) writeJournal(w io.Writer) error {
	l := g.layout()
	entryBytes := journalEntryBytes(g.SectorBytes, g.Integrity.TagBytes)
	entries := journalEntriesPerSector(g.SectorBytes, g.Integrity.TagBytes)
	section := make([]byte, l.sectionSectors*dmSectorBytes)
	for j := range int64(journalBlockSectors) {
		for k := range entries { // journal_entry_set_unused
			binary.LittleEndian.PutUint32(section[j*dmSectorBytes+k*entryBytes+4:], 0xffffffff)
		}
	}
	for i := range l.sections {
		for j := range l.sectionSectors {
			id := uint64(journalCommitID) ^ uint64(i)<<32 ^ uint64(j)
			binary.LittleEndian.PutUint64(section[j*dmSectorBytes+journalSectorBytes:], id)
		}
		if _, err := w.Write(section); err != nil {
			return fmt.Errorf("writing integrity journal: %w", err)
		}
	}
	return nil
}
