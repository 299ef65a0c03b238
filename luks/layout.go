package luks

// Names and constants follow drivers/md/dm-integrity.c.
const (
	superblockSectors     = 8 // SB_SECTORS
	journalBlockSectors   = 8 // JOURNAL_BLOCK_SECTORS: the sectors of entries in a section
	journalSectorBytes    = dmSectorBytes - 8
	journalEntryHeadBytes = 8
	journalEntryRoundUp   = 8
)

// layout is where dm-integrity puts things in a segment, with the superblock
// flag SB_FLAG_FIXED_PADDING and without journal MAC.
type layout struct {
	blockBytes     int64 // data covered by one tag
	tagBytes       int64
	runBytes       int64 // data following one run of tags
	tagRunBytes    int64 // length of a run of tags, padding included
	initialBytes   int64 // superblock and journal
	sectionSectors int64
	sections       int64
}

func (g *Geometry) layout() layout {
	i := g.Integrity
	l := layout{
		blockBytes:     int64(g.SectorBytes),
		tagBytes:       int64(i.TagBytes),
		runBytes:       dmSectorBytes << i.Log2InterleaveSectors,
		sectionSectors: journalSectionSectors(g.SectorBytes, i.TagBytes),
		sections:       int64(i.JournalSections),
	}
	l.tagRunBytes = roundUp(l.runBytes/l.blockBytes*l.tagBytes, alignBytes)
	l.initialBytes = (superblockSectors + l.sectionSectors*l.sections) * dmSectorBytes
	return l
}

// dataOffset is get_data_sector: where in the segment plaintext offset plain lives.
func (l layout) dataOffset(plain int64) int64 {
	return l.initialBytes + (plain/l.runBytes+1)*l.tagRunBytes + plain
}

// tagOffset is where in the segment the tag of plaintext offset plain lives.
func (l layout) tagOffset(plain int64) int64 {
	run := plain / l.runBytes
	return l.initialBytes + run*(l.tagRunBytes+l.runBytes) + plain%l.runBytes/l.blockBytes*l.tagBytes
}

// journalEntryBytes is ic->journal_entry_size: sector number, the last eight
// bytes of every 512-byte sector of the block, tag.
func journalEntryBytes(blockBytes, tagBytes int) int64 {
	return roundUp(int64(journalEntryHeadBytes+blockBytes/dmSectorBytes*8+tagBytes), journalEntryRoundUp)
}

func journalEntriesPerSector(blockBytes, tagBytes int) int64 {
	return journalSectorBytes / journalEntryBytes(blockBytes, tagBytes)
}

// journalSectionSectors is ic->journal_section_sectors.
func journalSectionSectors(blockBytes, tagBytes int) int64 {
	entries := journalEntriesPerSector(blockBytes, tagBytes) * journalBlockSectors
	return entries*int64(blockBytes/dmSectorBytes) + journalBlockSectors
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
