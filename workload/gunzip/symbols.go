package gunzip

import (
	"encoding/binary"
	"errors"
)

const (
	windowBytes = 32 << 10 // how far back a match may reach
	chunkBytes  = 256 << 10
	// slack is what may be written beyond a chunk's end before it is looked at:
	// three pairs of literals, the longest match, and what copying by words adds.
	slack     = 6 + 258 + overshoot
	overshoot = 16
)

// decoder inflates (RFC 1951) from in to out.
type decoder struct {
	input
	out   []byte // what earlier chunks ended with, then this chunk
	start int    // of this chunk
	at    int
	full  func() error // takes out[start:at], and makes room

	literals, distances table
	fixed               bool // they are those of fixed codes
	literalSymbols      [maxSymbols]entry
	distanceSymbols     [32]entry
}

var errDistance = errors.New("match before the start")

// symbols decodes one block's literals and matches. 56 bits are enough for
// three entries of the first table, or for a length and a distance of 48 bits.
// What follows a match is looked up before the match is copied, which takes as
// long as that.
func (d *decoder) symbols() error {
	out, in, at, limit := d.out, d.in, d.at, d.start+chunkBytes
	bits, n, pos := d.bits, d.n, d.pos
	literals, distances := &d.literals, &d.distances
	for {
		if at >= limit || pos+8 > d.end {
			d.bits, d.n, d.pos, d.at = bits, n, pos, at
			if err := d.proceed(); err != nil {
				return err
			}
			out, at, limit, pos = d.out, d.at, d.start+chunkBytes, d.pos
		}
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (n & 63)
		pos += int(63-n) >> 3
		n |= 56
		e := literals.first[bits&(1<<firstBits-1)]
		if e&isLiteral != 0 {
			binary.LittleEndian.PutUint16(out[at:], uint16(e>>16))
			at, bits, n = at+e.literals(), bits>>e.bits(), n-e.bits()
			if e = literals.first[bits&(1<<firstBits-1)]; e&isLiteral != 0 {
				binary.LittleEndian.PutUint16(out[at:], uint16(e>>16))
				at, bits, n = at+e.literals(), bits>>e.bits(), n-e.bits()
				if e = literals.first[bits&(1<<firstBits-1)]; e&isLiteral != 0 {
					binary.LittleEndian.PutUint16(out[at:], uint16(e>>16))
					at, bits, n = at+e.literals(), bits>>e.bits(), n-e.bits()
					continue
				}
			}
			if n < 48 {
				continue
			}
		}
		if e&isLong != 0 {
			e = literals.find(bits)
		}
		length := e.value(bits)
		bits, n = bits>>e.bits(), n-e.bits()
		if e&(isLiteral|isEnd) != 0 || length < 3 {
			if e&isLiteral != 0 {
				out[at] = byte(e >> 16)
				at++
				continue
			}
			d.bits, d.n, d.pos, d.at = bits, n, pos, at
			if e&isEnd == 0 {
				return errCode
			}
			return nil
		}
		e = distances.find(bits)
		distance := e.value(bits)
		bits, n = bits>>e.bits(), n-e.bits()
		if distance == 0 {
			return errCode
		}
		if distance > at {
			return errDistance
		}
		repeat(out[at-distance:at+length+overshoot], distance, length)
		at += length
	}
}

// proceed makes room in out if it is full, and gets more input if there is
// little.
func (d *decoder) proceed() error {
	if d.at >= d.start+chunkBytes {
		if err := d.full(); err != nil {
			return err
		}
	}
	if d.pos+8 > d.end {
		return d.more()
	}
	return nil
}

// repeat copies length bytes within b from its start to distance, byte by byte
// as it were: a match may reach into itself. Up to overshoot bytes more are
// spoilt, which b must have. Most matches are of 16 bytes or less: not to count
// them saves the CPU a wrong guess.
func repeat(b []byte, distance, length int) {
	if distance < 8 {
		for i := range length {
			b[distance+i] = b[i]
		}
		return
	}
	binary.LittleEndian.PutUint64(b[distance:], binary.LittleEndian.Uint64(b))
	binary.LittleEndian.PutUint64(b[distance+8:], binary.LittleEndian.Uint64(b[8:]))
	for i := 16; i < length; i += 8 {
		binary.LittleEndian.PutUint64(b[distance+i:], binary.LittleEndian.Uint64(b[i:]))
	}
}
