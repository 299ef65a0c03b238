package luks

import (
	"fmt"
	"io"
)

// noUUID fills the member of a geometry that no header carries.
const noUUID = "00000000-0000-0000-0000-000000000000"

// ScratchGeometry lays out an area for plainBytes (a multiple of 4096) that a
// guest writes and nothing else: with the cipher of the image's geometry and
// always with integrity, but under an IV that is drawn at each write and stored with the tag. Whoever
// makes two guests go on from copies of one area thus gets no two sectors
// under the same key and tweak. The kernel alone reads and writes it.
func ScratchGeometry(image Geometry, plainBytes int64) (Geometry, error) {
	s, err := image.suite()
	if err != nil {
		return Geometry{}, err
	}
	g, err := NewGeometry(noUUID, plainBytes, s.name, true)
	if err != nil {
		return Geometry{}, err
	}
	g.randomIV = true
	g.Integrity.TagBytes += ivBytes
	g.chooseJournal()
	return g, g.Validate()
}

// VolumeGeometry is ScratchGeometry for a volume, which outlives its containers
// and may grow: its journal does not depend on its size, so that a larger one
// begins as a smaller one does.
func VolumeGeometry(image Geometry, plainBytes int64) (Geometry, error) {
	g, err := ScratchGeometry(image, plainBytes)
	if err != nil {
		return Geometry{}, err
	}
	g.Integrity.JournalSections = int(maxDefaultJournalBytes / (journalSectionSectors(g.SectorBytes, g.Integrity.TagBytes) * dmSectorBytes))
	return g, g.Validate()
}

// WriteEmpty makes a disk of g on w that has no readable sector: dm-integrity's
// superblock and an empty journal, up to 4 MiB. No tags are written, so a
// sector can be read once it has been written under the disk's key, whatever
// was there before.
func WriteEmpty(w io.Writer, g Geometry) error {
	if err := g.Validate(); err != nil {
		return err
	}
	if g.Integrity == nil {
		return fmt.Errorf("an empty disk without integrity tags")
	}
	if err := WriteSuperblock(w, g); err != nil {
		return err
	}
	return g.writeJournal(w)
}

// WriteSuperblock writes what begins a disk of g, dm-integrity's superblock, to w.
// Of a disk that only grows it is all that changes.
func WriteSuperblock(w io.Writer, g Geometry) error {
	if g.SegmentBytes() == 0 || g.Integrity == nil {
		return fmt.Errorf("a superblock of a disk without integrity tags")
	}
	if _, err := w.Write(g.superblock()); err != nil {
		return fmt.Errorf("writing dm-integrity superblock: %w", err)
	}
	return nil
}
