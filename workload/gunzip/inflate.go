package gunzip

import (
	"encoding/binary"
	"errors"
)

var errBlock = errors.New("invalid block")

// inflate decodes blocks up to the last.
func (d *decoder) inflate() error {
	for {
		if err := d.fill(); err != nil {
			return err
		}
		last := d.take(1) == 1
		var err error
		switch d.take(2) {
		case 0:
			err = d.stored()
		case 1:
			if err = d.useFixed(); err == nil {
				err = d.symbols()
			}
		case 2:
			d.fixed = false
			if err = d.readCodes(); err == nil {
				err = d.symbols()
			}
		default:
			err = errBlock
		}
		if err != nil || last {
			return err
		}
	}
}

func (d *decoder) stored() error {
	d.align()
	var head [4]byte
	if err := d.read(head[:]); err != nil {
		return err
	}
	n := int(binary.LittleEndian.Uint16(head[:]))
	if n != int(^binary.LittleEndian.Uint16(head[2:])) {
		return errBlock
	}
	for n > 0 {
		k := min(n, d.start+chunkBytes-d.at)
		if err := d.read(d.out[d.at : d.at+k]); err != nil {
			return err
		}
		n -= k
		if d.at += k; d.at >= d.start+chunkBytes {
			if err := d.full(); err != nil {
				return err
			}
		}
	}
	return nil
}

// useFixed is RFC 1951, section 3.2.6.
func (d *decoder) useFixed() error {
	if d.fixed {
		return nil
	}
	var lengths [maxSymbols]uint8
	for i := range lengths {
		switch {
		case i < 144, i >= 280:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	d.fixed = true
	if err := d.literals.build(lengths[:], d.literalSymbols[:]); err != nil {
		return err
	}
	d.literals.pair()
	for i := range d.distanceSymbols {
		lengths[i] = 5
	}
	return d.distances.build(lengths[:len(d.distanceSymbols)], d.distanceSymbols[:])
}

// lengthOrder is the order in which a block gives the code for code lengths.
const lengthOrder = "\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"

// readCodes is RFC 1951, section 3.2.7.
func (d *decoder) readCodes() error {
	if err := d.fill(); err != nil {
		return err
	}
	nl, nd, nc := 257+d.take(5), 1+d.take(5), 4+d.take(4)
	if nl > 286 || nd > 30 {
		return errBlock
	}
	var lengths [286 + 30]uint8
	for i := range nc {
		if err := d.fill(); err != nil {
			return err
		}
		lengths[lengthOrder[i]] = uint8(d.take(3))
	}
	// The codes' own table is made where the one of distances will be.
	var plain [19]entry
	for i := range plain {
		plain[i] = entry(i) << 16
	}
	if err := d.distances.build(lengths[:19], plain[:]); err != nil {
		return err
	}
	if err := d.readLengths(lengths[:nl+nd]); err != nil {
		return err
	}
	if err := d.literals.build(lengths[:nl], d.literalSymbols[:]); err != nil {
		return err
	}
	d.literals.pair()
	return d.distances.build(lengths[nl:nl+nd], d.distanceSymbols[:])
}

func (d *decoder) readLengths(lengths []uint8) error {
	for i := 0; i < len(lengths); {
		if err := d.fill(); err != nil {
			return err
		}
		e := d.distances.find(d.bits)
		if e == 0 {
			return errCode
		}
		d.take(e.bits())
		n, times := uint8(e>>16), 1
		switch n {
		case 16:
			if i == 0 {
				return errCode
			}
			n, times = lengths[i-1], 3+d.take(2)
		case 17:
			n, times = 0, 3+d.take(3)
		case 18:
			n, times = 0, 11+d.take(7)
		}
		if times > len(lengths)-i {
			return errCode
		}
		for range times {
			lengths[i] = n
			i++
		}
	}
	return nil
}
