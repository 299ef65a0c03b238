package luks

import "encoding/binary"

// aadBytes is the length of a sector's number and IV.
const aadBytes = 8 + 16

// putAAD writes what is authenticated before the data: the sector's number, then
// the IV. Of plain64 that is the number once more, with zeros behind it.
func putAAD(b []byte, sector uint64) {
	binary.LittleEndian.PutUint64(b[0:], sector)
	binary.LittleEndian.PutUint64(b[8:], sector)
	clear(b[16:])
}
