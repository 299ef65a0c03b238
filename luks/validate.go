package luks

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
)

const (
	maxKeyslots      = 32
	maxKeyslotsBytes = 128 << 20 // LUKS2_MAX_KEYSLOTS_SIZE
)

// validate accepts metadata in which everything is on the allow-list and
// nothing overlaps: one crypt segment, one digest, LUKS2 keyslots.
func (m *metadata) validate(headerBytes, diskBytes int64) error {
	ks := int64(m.Config.KeyslotsSize)
	switch {
	case int64(m.Config.JSONSize) != headerBytes-binaryBytes:
		return fmt.Errorf("json_size %d, expected %d", m.Config.JSONSize, headerBytes-binaryBytes)
	case ks <= 0 || ks%alignBytes != 0 || ks > maxKeyslotsBytes:
		return fmt.Errorf("keyslots_size %d, expected a multiple of %d up to %d", ks, alignBytes, maxKeyslotsBytes)
	case m.Config.Requirements != nil:
		return errors.New("LUKS2 header has requirements (an unfinished reencryption?); expected none")
	case len(m.Segments) != 1 || len(m.Digests) != 1:
		return fmt.Errorf("%d segments and %d digests, expected one of each", len(m.Segments), len(m.Digests))
	}
	s, ok := m.Segments["0"]
	if !ok {
		return errors.New("LUKS2 header without segment 0")
	}
	if err := s.validate(2*headerBytes+ks, diskBytes); err != nil {
		return fmt.Errorf("checking segment: %w", err)
	}
	u, err := s.suite()
	if err != nil {
		return fmt.Errorf("checking segment: %w", err)
	}
	if err := m.validateKeyslots(u.keyBytes, 2*headerBytes, 2*headerBytes+ks); err != nil {
		return err
	}
	return m.validateDigest()
}

func (s *segment) validate(areasEnd, diskBytes int64) error {
	off := int64(s.Offset)
	switch {
	case s.Type != "crypt":
		return fmt.Errorf("type %.20q, expected crypt", s.Type)
	case s.SectorSize != 512 && s.SectorSize != 4096:
		return fmt.Errorf("sector size %d, expected 512 or 4096", s.SectorSize)
	case s.IVTweak != 0:
		return fmt.Errorf("IV tweak %d, expected 0", s.IVTweak)
	case off < areasEnd || off%alignBytes != 0 || off > maxDataOffsetBytes || off >= diskBytes:
		return fmt.Errorf("offset %d, expected a multiple of %d after the keyslots (%d) and inside the disk (%d)", off, alignBytes, areasEnd, diskBytes)
	case len(s.Flags) > 0:
		return fmt.Errorf("flags %.40q, expected none", s.Flags)
	}
	if s.Size != "dynamic" {
		n, err := parseDecimal(s.Size)
		if err != nil {
			return fmt.Errorf("size: %w", err)
		}
		if n <= 0 || n%int64(s.SectorSize) != 0 || n > diskBytes-off {
			return fmt.Errorf("size %d, expected a multiple of %d that fits the disk", n, s.SectorSize)
		}
	}
	i := s.Integrity
	if i != nil && (i.JournalEncryption != "none" || i.JournalIntegrity != "none" || i.KeyBytes != nil && (i.Type != integrityHMAC256 || *i.KeyBytes != macKeyBytes)) {
		return fmt.Errorf("integrity %.40q with journal encryption %.20q, journal integrity %.20q and a key size, expected none, none, and none or %d with %s", i.Type, i.JournalEncryption, i.JournalIntegrity, macKeyBytes, integrityHMAC256)
	}
	return nil
}

// suite is the one that the segment names.
func (s *segment) suite() (suite, error) {
	if s.Integrity == nil {
		return findSuite(s.Encryption, "")
	}
	if s.Integrity.Type == "" {
		return suite{}, errors.New("integrity tags of no algorithm")
	}
	return findSuite(s.Encryption, s.Integrity.Type)
}

func (m *metadata) validateKeyslots(keyBytes int, start, end int64) error {
	if len(m.Keyslots) < 1 || len(m.Keyslots) > maxKeyslots {
		return fmt.Errorf("%d keyslots, expected 1 to %d", len(m.Keyslots), maxKeyslots)
	}
	var taken [][2]int64
	for _, name := range m.slotNames() {
		k := m.Keyslots[name]
		if n, err := parseDecimal(name); err != nil || n >= maxKeyslots {
			return fmt.Errorf("keyslot %.20q, expected a number below %d", name, maxKeyslots)
		}
		if err := k.validate(keyBytes, start, end); err != nil {
			return fmt.Errorf("checking keyslot %s: %w", name, err)
		}
		from, to := int64(k.Area.Offset), int64(k.Area.Offset+k.Area.Size)
		for _, t := range taken {
			if from < t[1] && t[0] < to {
				return fmt.Errorf("keyslot %s overlaps another one", name)
			}
		}
		taken = append(taken, [2]int64{from, to})
	}
	return nil
}

// slotNames returns the keyslots in numerical order.
func (m *metadata) slotNames() []string {
	names := make([]string, 0, len(m.Keyslots))
	for n := range m.Keyslots {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b string) int {
		x, _ := strconv.Atoi(a)
		y, _ := strconv.Atoi(b)
		return x - y
	})
	return names
}

func (k *keyslot) validate(keyBytes int, start, end int64) error {
	off, size, want := int64(k.Area.Offset), int64(k.Area.Size), slotAreaBytes(keyBytes)
	_, hashErr := hashByName(k.AF.Hash)
	switch {
	case k.Type != "luks2":
		return fmt.Errorf("type %.20q, expected luks2", k.Type)
	case k.KeyBytes != keyBytes:
		return fmt.Errorf("key of %d bytes, expected %d", k.KeyBytes, keyBytes)
	case k.AF.Type != "luks1" || k.AF.Stripes != afStripes:
		return fmt.Errorf("splitter %.20q with %d stripes, expected luks1 with %d", k.AF.Type, k.AF.Stripes, afStripes)
	case hashErr != nil:
		return hashErr
	case k.Area.Type != "raw":
		return fmt.Errorf("area %.20q, expected raw", k.Area.Type)
	case k.Area.Encryption != cipherAESXTS:
		return fmt.Errorf("area encryption %.40q, expected %s", k.Area.Encryption, cipherAESXTS)
	case k.Area.KeyBytes != 32 && k.Area.KeyBytes != 64:
		return fmt.Errorf("area key of %d bytes, expected 32 or 64", k.Area.KeyBytes)
	case size != want:
		return fmt.Errorf("area of %d bytes, expected %d", size, want)
	case off < start || off%alignBytes != 0 || off > end-size:
		return fmt.Errorf("area at %d, expected a multiple of %d from %d to %d", off, alignBytes, start, end-size)
	case len(k.KDF.Salt) != saltBytes:
		return fmt.Errorf("salt of %d bytes, expected %d", len(k.KDF.Salt), saltBytes)
	}
	return k.KDF.validate()
}

func (k slotKDF) validate() error {
	if k.Type == "pbkdf2" && (k.Time != 0 || k.Memory != 0 || k.CPUs != 0) || k.Type != "pbkdf2" && (k.Hash != "" || k.Iterations != 0) {
		return fmt.Errorf("%.20q with parameters of another function", k.Type)
	}
	return k.kdf().Validate()
}

// slotAreaBytes is the length of a keyslot area for a key of n bytes.
func slotAreaBytes(n int) int64 { return roundUp(int64(n)*afStripes, alignBytes) }

func (m *metadata) validateDigest() error {
	d, ok := m.Digests["0"]
	if !ok {
		return errors.New("LUKS2 header without digest 0")
	}
	h, err := hashByName(d.Hash)
	switch {
	case d.Type != "pbkdf2":
		return fmt.Errorf("digest type %.20q, expected pbkdf2", d.Type)
	case err != nil:
		return fmt.Errorf("checking digest: %w", err)
	case d.Iterations < minPBKDF2Iterations || d.Iterations > maxPBKDF2Iterations:
		return fmt.Errorf("digest with %d iterations, expected %d to %d", d.Iterations, minPBKDF2Iterations, maxPBKDF2Iterations)
	case len(d.Salt) != saltBytes || len(d.Digest) != h().Size():
		return fmt.Errorf("digest of %d bytes with salt of %d, expected %d and %d", len(d.Digest), len(d.Salt), h().Size(), saltBytes)
	case !slices.Equal(d.Segments, []string{"0"}):
		return fmt.Errorf("digest for segments %.20q, expected 0", d.Segments)
	}
	seen := map[string]bool{}
	for _, s := range d.Keyslots {
		if _, ok := m.Keyslots[s]; !ok || seen[s] {
			return fmt.Errorf("digest names keyslot %.20q, which is missing or repeated", s)
		}
		seen[s] = true
	}
	return nil
}
