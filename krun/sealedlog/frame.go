package sealedlog

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// A frame is what one line holds, encrypted: the tag of the frame before it, and
// records, then zeros. The sequence number is the nonce; it never repeats, since
// a boot has its key to itself and counts on.
const (
	chainBytes  = 16
	recordHead  = 1 + 8 + 4 // kind, nanoseconds since 1970, length
	padTo       = 256       // so that lines do not show how long a short word was
	frameBytes  = 16 << 10  // of plaintext
	maxContents = frameBytes - chainBytes
)

// chain is what ties a frame to the one before it: its tag; of the first, zeros.
type chain [chainBytes]byte

func nonce(seq uint64) []byte {
	var n [12]byte
	binary.BigEndian.PutUint64(n[4:], seq)
	return n[:]
}

// sealFrame encrypts plain, which begins with the chain, into the memory of to,
// and returns the line and the chain of the next frame.
func sealFrame(to []byte, a cipher.AEAD, boot string, seq uint64, plain []byte) (l line, next chain) {
	l = line{boot: boot, seq: seq}
	l.body = a.Seal(to[:0], nonce(seq), plain, []byte(head(boot, l.sequence())))
	copy(next[:], l.body[len(l.body)-chainBytes:])
	return l, next
}

var errNotAuthentic = errors.New("altered, or written by another than the guest")

// openFrame decrypts and decodes l.
func (l *line) openFrame(a cipher.AEAD) (before chain, records []Record, err error) {
	if len(l.body) > frameBytes+a.Overhead() {
		return before, nil, errNotAuthentic
	}
	plain, err := a.Open(nil, nonce(l.seq), l.body, []byte(head(l.boot, l.sequence())))
	if err != nil {
		return before, nil, errNotAuthentic
	}
	if len(plain) < chainBytes {
		return before, nil, fmt.Errorf("frame of %d bytes, expected at least %d", len(plain), chainBytes)
	}
	records, err = parseRecords(plain[chainBytes:])
	return chain(plain), records, err
}

// appendRecord begins a record of n bytes, which follow.
func appendRecord(to []byte, k Kind, at time.Time, n int) []byte {
	to = append(to, byte(k))
	to = binary.BigEndian.AppendUint64(to, uint64(at.UnixNano()))
	return binary.BigEndian.AppendUint32(to, uint32(n))
}

// parseRecords takes what the writer writes and nothing else: at least one
// record, a Last only at the end, and zeros up to a multiple of padTo.
func parseRecords(b []byte) (all []Record, err error) {
	for len(b) > 0 && b[0] != 0 {
		if len(b) < recordHead {
			return nil, errors.New("record that is cut short")
		}
		k := Kind(b[0])
		if k > Last {
			return nil, fmt.Errorf("record of %s, expected 1 to %d: written by a later version", k, Last)
		}
		n := binary.BigEndian.Uint32(b[9:])
		if uint64(n) > uint64(len(b)-recordHead) {
			return nil, fmt.Errorf("record of %d bytes in a frame with %d left", n, len(b)-recordHead)
		}
		if len(all) > 0 && all[len(all)-1].Kind == Last {
			return nil, errors.New("a record after the last one")
		}
		at := time.Unix(0, int64(binary.BigEndian.Uint64(b[1:])))
		all = append(all, Record{Kind: k, Time: at, Data: b[recordHead : recordHead+n]})
		b = b[recordHead+n:]
	}
	if len(all) == 0 || len(b) >= padTo {
		return nil, errors.New("frame without a record, or padded with more than it needs")
	}
	for _, c := range b {
		if c != 0 {
			return nil, errors.New("padding that is not zero")
		}
	}
	return all, nil
}
