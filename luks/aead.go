package luks

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
)

// ErrIntegrity says that a sector is not what was written there.
var ErrIntegrity = errors.New("disk sector failed its integrity check")

// xtsHMAC is AES-XTS, and with integrity authenc(hmac(sha256),xts(aes)):
// encrypt, then MAC over sector number ‖ IV ‖ ciphertext
// (crypt_convert_block_aead).
type xtsHMAC struct {
	xts     *xts
	mac     hash.Hash // nil without integrity
	lanes   macLanes
	scratch xtsScratch
	aad     [aadBytes]byte
	sum     [sha256.Size]byte
}

func newXTSHMAC(vk *VolumeKey, integrity bool) (*xtsHMAC, error) {
	x, err := newXTS(vk.cipherKey())
	if err != nil {
		return nil, err
	}
	c := &xtsHMAC{xts: x}
	if integrity {
		c.mac = hmac.New(sha256.New, vk.macKey())
		c.lanes.init(vk.macKey())
	}
	return c, nil
}

// seal is sectorCipher's.
func (c *xtsHMAC) seal(b, tags []byte, sector uint64, sectorBytes int) {
	for i := 0; i < len(b); i += sectorBytes {
		c.xts.encrypt(b[i:i+sectorBytes], sector+uint64(i/dmSectorBytes), &c.scratch)
	}
	if c.mac == nil {
		return
	}
	for i := c.lanes.tags(b, tags, sector, sectorBytes, sectorBytes/dmSectorBytes); i < len(b); i += sectorBytes {
		copy(tags[i/sectorBytes*macTagBytes:][:macTagBytes], c.tag(b[i:i+sectorBytes], sector+uint64(i/dmSectorBytes)))
	}
}

// open is sectorCipher's.
func (c *xtsHMAC) open(b, tag []byte, sector uint64) error {
	if c.mac != nil && !hmac.Equal(tag, c.tag(b, sector)) {
		return fmt.Errorf("sector %d: %w", sector, ErrIntegrity)
	}
	c.xts.decrypt(b, sector, &c.scratch)
	return nil
}

func (c *xtsHMAC) tag(b []byte, sector uint64) []byte {
	putAAD(c.aad[:], sector)
	c.mac.Reset()
	c.mac.Write(c.aad[:])
	c.mac.Write(b)
	return c.mac.Sum(c.sum[:0])
}
