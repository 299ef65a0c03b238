//go:build !purego

package luks

import (
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

// lanes is the state of SHA-256 over 16 messages at once: a word of all of
// them, then the next word.
type lanes [8][tagLanes]uint32

const (
	tagLanes     = 16
	shaBlock     = 64
	firstOfData  = shaBlock - aadBytes // of a sector, in its first block
	paddingStart = 0x80
)

// sha256x16 goes on with 16 messages by blocks (at least one) of 64 bytes: the
// first at p, each of the others stride bytes after the one before. It wants
// AVX-512, F and BW.
//
//go:noescape
func sha256x16(state *lanes, p *byte, stride, blocks int)

// macLanes makes the tags of 16 sectors at once. One SHA-256 after the other
// waits for itself: each round needs the one before. Sectors do not need each
// other, and so 16 of them take a CPU with AVX-512 half to a third of the time
// that its SHA instructions do, for what is a third of a build's hashing.
type macLanes struct {
	usable       bool
	inner, outer lanes // after the block with the key (FIPS 198-1)
	state        lanes
	block        [tagLanes][shaBlock]byte
}

// init takes a key of at most a block.
func (m *macLanes) init(macKey []byte) {
	if !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512BW {
		return
	}
	m.usable = true
	m.inner, m.outer = m.keyed(macKey, 0x36), m.keyed(macKey, 0x5c)
	clear(m.block[:])
}

func (m *macLanes) keyed(macKey []byte, pad byte) lanes {
	for i := range m.block {
		b := &m.block[i]
		clear(b[copy(b[:], macKey):])
		for j := range b {
			b[j] ^= pad
		}
	}
	// FIPS 180-4, section 5.3.3
	for i, h := range [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19} {
		for j := range m.state[i] {
			m.state[i][j] = h
		}
	}
	m.compress()
	return m.state
}

func (m *macLanes) compress() { sha256x16(&m.state, &m.block[0][0], shaBlock, 1) }

// tags puts the tags of sectors of sectorBytes, a multiple of 64, where they
// belong, and returns how many bytes of b have theirs: whole groups of 16
// sectors, or none if the CPU cannot. Numbers go up by step from one sector to
// the next.
func (m *macLanes) tags(b, tags []byte, sector uint64, sectorBytes, step int) int {
	if !m.usable {
		return 0
	}
	done, group := 0, tagLanes*sectorBytes
	for ; len(b)-done >= group; done += group {
		m.group(b[done:done+group], sector+uint64(done/sectorBytes*step), sectorBytes, step)
		for i := range tagLanes {
			m.digest(tags[(done/sectorBytes+i)*sha256.Size:][:sha256.Size], i)
		}
	}
	return done
}

// group leaves the tags of 16 sectors in state. The data of each starts in the
// block that the sector's number starts, and ends in the one with the padding.
func (m *macLanes) group(b []byte, sector uint64, sectorBytes, step int) {
	m.state = m.inner
	for i := range m.block {
		putAAD(m.block[i][:aadBytes], sector+uint64(i*step))
		copy(m.block[i][aadBytes:], b[i*sectorBytes:])
	}
	m.compress()
	sha256x16(&m.state, &b[firstOfData], sectorBytes, (sectorBytes-firstOfData)/shaBlock)
	for i := range m.block {
		end := (i + 1) * sectorBytes
		m.pad(i, copy(m.block[i][:], b[end-aadBytes:end]), shaBlock+aadBytes+sectorBytes)
	}
	m.compress()
	for i := range m.block {
		m.digest(m.block[i][:sha256.Size], i)
		m.pad(i, sha256.Size, shaBlock+sha256.Size)
	}
	m.state = m.outer
	m.compress()
}

// pad ends a message of length bytes after the n of them in its last block.
func (m *macLanes) pad(lane, n, length int) {
	b := &m.block[lane]
	clear(b[n:])
	b[n] = paddingStart
	binary.BigEndian.PutUint64(b[shaBlock-8:], uint64(length)*8)
}

func (m *macLanes) digest(to []byte, lane int) {
	for i := range m.state {
		binary.BigEndian.PutUint32(to[4*i:], m.state[i][lane])
	}
}
