package luks

import "errors"

// sectorCipher is what dm-crypt does to sectors. It is for one goroutine.
type sectorCipher interface {
	// seal encrypts b, whole sectors of sectorBytes each, in place and, with
	// integrity, puts their tags into tags. sector is the number of the first.
	seal(b, tags []byte, sector uint64, sectorBytes int)
	// open verifies one sector against tag, if there is integrity, and decrypts it
	// in place.
	open(b, tag []byte, sector uint64) error
}

// newSectorCipher is the one of g.
func newSectorCipher(g *Geometry, vk *VolumeKey) (sectorCipher, error) {
	if err := vk.check(g); err != nil {
		return nil, err
	}
	if g.randomIV {
		return nil, errors.New("sectors with stored IVs are the kernel's alone")
	}
	s, err := g.suite()
	if err != nil {
		return nil, err
	}
	if s.name == AEGIS128 {
		return newAEGIS(vk.b)
	}
	return newXTSHMAC(vk, s.tagBytes > 0)
}
