package luks

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
)

// metadata is the LUKS2 JSON area (specification, section 3).
type metadata struct {
	Keyslots map[string]keyslot         `json:"keyslots"`
	Tokens   map[string]json.RawMessage `json:"tokens"`
	Segments map[string]segment         `json:"segments"`
	Digests  map[string]digest          `json:"digests"`
	Config   config                     `json:"config"`
}

type keyslot struct {
	Type     string  `json:"type"`
	KeyBytes int     `json:"key_size"`
	AF       af      `json:"af"`
	Area     area    `json:"area"`
	KDF      slotKDF `json:"kdf"`
	Priority *int    `json:"priority,omitempty"`
}

type af struct {
	Type    string `json:"type"`
	Stripes int    `json:"stripes"`
	Hash    string `json:"hash"`
}

type area struct {
	Type       string  `json:"type"`
	Offset     decimal `json:"offset"`
	Size       decimal `json:"size"`
	Encryption string  `json:"encryption"`
	KeyBytes   int     `json:"key_size"`
}

type slotKDF struct {
	Type       string      `json:"type"`
	Salt       base64Bytes `json:"salt"`
	Hash       string      `json:"hash,omitempty"`
	Iterations int         `json:"iterations,omitempty"`
	Time       int         `json:"time,omitempty"`
	Memory     int         `json:"memory,omitempty"`
	CPUs       int         `json:"cpus,omitempty"`
}

type segment struct {
	Type       string            `json:"type"`
	Offset     decimal           `json:"offset"`
	Size       string            `json:"size"` // "dynamic" or a decimal
	IVTweak    decimal           `json:"iv_tweak"`
	Encryption string            `json:"encryption"`
	SectorSize int               `json:"sector_size"`
	Integrity  *segmentIntegrity `json:"integrity,omitempty"`
	Flags      []string          `json:"flags,omitempty"`
}

type segmentIntegrity struct {
	Type              string `json:"type"`
	JournalEncryption string `json:"journal_encryption"`
	JournalIntegrity  string `json:"journal_integrity"`
	KeyBytes          *int   `json:"key_size,omitempty"` // cryptsetup 2.8
}

type digest struct {
	Type       string      `json:"type"`
	Keyslots   []string    `json:"keyslots"`
	Segments   []string    `json:"segments"`
	Hash       string      `json:"hash"`
	Iterations int         `json:"iterations"`
	Salt       base64Bytes `json:"salt"`
	Digest     base64Bytes `json:"digest"`
}

type config struct {
	JSONSize     decimal         `json:"json_size"`
	KeyslotsSize decimal         `json:"keyslots_size"`
	Flags        []string        `json:"flags,omitempty"`
	Requirements json.RawMessage `json:"requirements,omitempty"`
}

func (k slotKDF) kdf() KDF {
	if k.Type == "pbkdf2" {
		return KDF{Type: k.Type, Hash: k.Hash, Iterations: k.Iterations}
	}
	return KDF{Type: k.Type, Iterations: k.Time, MemoryKiB: k.Memory, Threads: k.CPUs}
}

func newSlotKDF(k KDF, salt []byte) slotKDF {
	if k.Type == "pbkdf2" {
		return slotKDF{Type: k.Type, Salt: salt, Hash: k.Hash, Iterations: k.Iterations}
	}
	return slotKDF{Type: k.Type, Salt: salt, Time: k.Iterations, Memory: k.MemoryKiB, CPUs: k.Threads}
}

// decimal is a non-negative number that LUKS2 writes as a string.
type decimal int64

// MarshalJSON implements json.Marshaler.
func (d decimal) MarshalJSON() ([]byte, error) {
	return []byte(`"` + strconv.FormatInt(int64(d), 10) + `"`), nil
}

// UnmarshalJSON implements json.Unmarshaler, refusing every other spelling.
func (d *decimal) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	n, err := parseDecimal(s)
	*d = decimal(n)
	return err
}

func parseDecimal(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("number %.24q, expected plain decimal digits", s)
	}
	return n, nil
}

// base64Bytes refuses encodings that are not canonical.
type base64Bytes []byte

// MarshalJSON implements json.Marshaler.
func (v base64Bytes) MarshalJSON() ([]byte, error) { return json.Marshal([]byte(v)) }

// UnmarshalJSON implements json.Unmarshaler.
func (v *base64Bytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	d, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || base64.StdEncoding.EncodeToString(d) != s {
		return fmt.Errorf("value %.24q is not canonical base64", s)
	}
	*v = d
	return nil
}
