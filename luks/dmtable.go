package luks

import (
	"encoding/hex"
	"fmt"
)

// target is one line of a device mapper table.
type target struct {
	kind    string // target type
	sectors int64  // length in 512-byte sectors, from 0
	params  []byte // may hold a key: wiped after use
}

// linearTable cuts the segment out of the disk file, to the sector. What
// follows it (a footer) must not count: dm-integrity derives the number of
// data sectors from the device's length and rewrites the superblock, even of
// a read-only device, if that disagrees with what it finds.
func linearTable(g *Geometry, dev string, start int64) target {
	return target{
		kind:    "linear",
		sectors: g.SegmentBytes() / dmSectorBytes,
		params:  fmt.Appendf(nil, "%s %d", dev, (start+g.DataOffsetBytes)/dmSectorBytes),
	}
}

// integrityTable stores the tags of the dm-crypt device above; it checks
// nothing itself. Writable: J, so that a crash never separates a sector from
// its tag. Read-only: R, the one mode that touches neither journal nor
// superblock; nothing is lost, since the checking is done above.
func integrityTable(g *Geometry, dev string, readOnly bool) target {
	mode := "J"
	if readOnly {
		mode = "R"
	}
	return target{
		kind:    "integrity",
		sectors: g.PlainBytes / dmSectorBytes,
		params:  fmt.Appendf(nil, "%s 0 %d %s 1 block_size:%d", dev, g.Integrity.TagBytes, mode, g.SectorBytes),
	}
}

// cryptTable decrypts, and with integrity verifies. key is dm-crypt's key
// field: hexKey or keyringKey.
func cryptTable(g *Geometry, dev string, key []byte) target {
	var features []string
	cipher := g.Cipher
	if g.Integrity != nil {
		iv := "plain64"
		if g.randomIV {
			iv = "random"
		}
		s, _ := g.suite() // g is valid: without one there is no such cipher
		cipher = "capi:" + s.aead + "-" + iv
		features = append(features, fmt.Sprintf("integrity:%d:aead", g.Integrity.TagBytes))
	}
	if g.SectorBytes != dmSectorBytes {
		features = append(features, fmt.Sprintf("sector_size:%d", g.SectorBytes))
	}
	p := make([]byte, 0, 512) // large enough: growing would leave copies of the key
	p = fmt.Appendf(p, "%s ", cipher)
	p = append(p, key...)
	p = fmt.Appendf(p, " 0 %s 0", dev)
	if len(features) > 0 {
		p = fmt.Appendf(p, " %d", len(features))
		for _, f := range features {
			p = fmt.Appendf(p, " %s", f)
		}
	}
	return target{kind: "crypt", sectors: g.PlainBytes / dmSectorBytes, params: p}
}

func hexKey(vk *VolumeKey) []byte { return hex.AppendEncode(nil, vk.b) }

func keyringKey(vk *VolumeKey, description string) []byte {
	return fmt.Appendf(nil, ":%d:logon:%s", len(vk.b), description)
}
