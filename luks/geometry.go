// Package luks writes and opens LUKS2 disks with authenticated encryption.
// It knows nothing of TEEs or containers. The format is the LUKS2 On-Disk
// Format Specification 1.1.x; disks it writes open with cryptsetup and the
// other way round.
package luks

// Geometry is everything that decides how a disk's bytes are decrypted,
// keyslots excepted. It is measured at launch, so that a guest never takes
// any of it from the (host-controlled) header. The zero value is refused.
type Geometry struct {
	UUID            string     `json:"uuid"`
	Cipher          string     `json:"cipher"`            // dm-crypt's name: "aes-xts-plain64"
	VolumeKeyBytes  int        `json:"volume_key_bytes"`  // cipher key and integrity key together
	SectorBytes     int        `json:"sector_bytes"`      // encryption sector: 4096 (512 for foreign disks)
	DataOffsetBytes int64      `json:"data_offset_bytes"` // start of the segment in the disk file
	PlainBytes      int64      `json:"plain_bytes"`       // what the opened device holds
	Integrity       *Integrity `json:"integrity,omitempty"`
}

// Integrity is the dm-integrity layout under the cipher. Nil means plain
// dm-crypt without authentication.
type Integrity struct {
	Algorithm             string `json:"algorithm"` // LUKS2's name: "hmac(sha256)"
	TagBytes              int    `json:"tag_bytes"` // per sector
	JournalSections       int    `json:"journal_sections"`
	Log2InterleaveSectors int    `json:"log2_interleave_sectors"` // in 512-byte sectors
}
