package gunzip

import (
	"errors"
	"math/bits"
)

// An entry of a table says what the next bits mean:
//
//	bits 0 to 5    how many of them it takes, those that follow the code included
//	bits 8 to 12   how many of those are the code itself; of literals: 1 or 2
//	bits 13 to 15  what it is
//	bits 16 to 31  one literal or two, or length or distance to which the rest is
//	               added, or where the second table starts
//
// Zero is no code.
type entry uint32

const (
	isLiteral entry = 1 << 13
	isEnd     entry = 1 << 14
	isLong    entry = 1 << 15 // the code is longer than the first table's bits
)

func (e entry) bits() uint     { return uint(e) & 63 }
func (e entry) codeBits() uint { return uint(e) >> 8 & 31 }
func (e entry) literals() int  { return int(e >> 8 & 3) }

// value adds what follows the code to the entry's.
func (e entry) value(b uint64) int {
	return int(e>>16) + int(b&(1<<e.bits()-1)>>e.codeBits())
}

const (
	maxCodeBits = 15
	firstBits   = 11 // of the table of literals and lengths; most codes are shorter
	longBits    = maxCodeBits - firstBits
	maxSymbols  = 288
)

// table decodes one Huffman code (RFC 1951, section 3.2.2).
type table struct {
	first [1 << firstBits]entry
	long  []entry // 1<<longBits for each beginning of longer codes
}

var errCode = errors.New("invalid Huffman code")

// find is the entry for the next bits.
func (t *table) find(b uint64) entry {
	e := t.first[b&(1<<firstBits-1)]
	if e&isLong != 0 {
		e = t.long[int(e>>16)+int(b>>firstBits&(1<<longBits-1))]
	}
	return e
}

// build makes the table of a code whose symbols have these lengths, zero for
// those that it lacks. A code must be complete, or have one symbol of one bit,
// or none.
func (t *table) build(lengths []uint8, symbols []entry) error {
	var count, next [maxCodeBits + 1]int
	for _, n := range lengths {
		count[n]++
	}
	used, code := len(lengths)-count[0], 0
	for n := 1; n <= maxCodeBits; n++ {
		code <<= 1
		next[n] = code
		code += count[n]
	}
	if code != 1<<maxCodeBits && used != 0 && (used != 1 || count[1] != 1) {
		return errCode
	}
	clear(t.first[:])
	t.long = t.long[:0]
	for symbol, n := range lengths {
		if n > 0 {
			reversed := bits.Reverse16(uint16(next[n])) >> (16 - n)
			next[n]++
			t.put(uint(reversed), uint(n), symbols[symbol])
		}
	}
	return nil
}

// put enters a symbol wherever the next bits start with its code.
func (t *table) put(code, n uint, symbol entry) {
	if symbol&isLiteral != 0 {
		symbol += entry(1<<8 + n)
	} else {
		symbol += entry(n<<8 + n)
	}
	if n <= firstBits {
		for i := code; i < 1<<firstBits; i += 1 << n {
			t.first[i] = symbol
		}
		return
	}
	start := &t.first[code&(1<<firstBits-1)]
	if *start == 0 {
		*start = isLong | entry(len(t.long))<<16
		t.long = append(t.long, make([]entry, 1<<longBits)...)
	}
	long := t.long[*start>>16:][:1<<longBits]
	for i := code >> firstBits; i < 1<<longBits; i += 1 << (n - firstBits) {
		long[i] = symbol
	}
}

// pair makes one entry of two literals where the first table's bits have both:
// most files need half as many steps then.
func (t *table) pair() {
	single := t.first
	for i, e := range single {
		n := e.bits()
		next := single[i>>n]
		if e&next&isLiteral != 0 && n+next.bits() <= firstBits {
			t.first[i] = e + next>>16<<24 + entry(1<<8+next.bits())
		}
	}
}

// literalSymbols and distanceSymbols are RFC 1951, section 3.2.5, without the
// bits of the codes. Symbols that must not occur are zero, and decode to no code.
func literalSymbols() (all [maxSymbols]entry) {
	for i := range 256 {
		all[i] = isLiteral | entry(i)<<16
	}
	all[256] = isEnd
	length := 3
	for i := 257; i < 285; i++ {
		extra := max(0, (i-261)/4)
		all[i] = entry(length)<<16 + entry(extra)
		length += 1 << extra
	}
	all[285] = 258 << 16
	return all
}

func distanceSymbols() (all [32]entry) {
	distance := 1
	for i := range 30 {
		extra := max(0, i/2-1)
		all[i] = entry(distance)<<16 + entry(extra)
		distance += 1 << extra
	}
	return all
}
