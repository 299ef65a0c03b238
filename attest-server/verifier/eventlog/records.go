package eventlog

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/cursor"
)

// Parse reads a whole log: the header, events, and nothing but the firmware's
// filling (all 0xff or all zero) after them.
func Parse(b []byte) (*Log, error) {
	if len(b) > MaxLogBytes {
		return nil, fmt.Errorf("event log of %d bytes, at most %d allowed: %w", len(b), MaxLogBytes, ErrFormat)
	}
	r := cursor.New(b)
	algorithms := header(r)
	if r.Err != nil {
		return nil, fmt.Errorf("reading event log: header: %w: %w", r.Err, ErrFormat)
	}
	l := &Log{}
	for !filling(r.Rest()) {
		if len(l.Events) == MaxEvents {
			return nil, fmt.Errorf("reading event log: more than %d events: %w", MaxEvents, ErrFormat)
		}
		at := r.Offset()
		e := event(r, algorithms)
		if r.Err != nil {
			return nil, fmt.Errorf("reading event log: event %d at offset %d: %w: %w", len(l.Events), at, r.Err, ErrFormat)
		}
		l.Events = append(l.Events, e)
	}
	return l, nil
}

// filling reports whether only the firmware's filling is left. Between events it
// is cheap: most of them begin with another byte. Zeros cannot be an event,
// which has at least one digest.
func filling(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if b[0] != 0 && b[0] != 0xff {
		return false
	}
	return len(bytes.TrimLeft(b, string(b[:1]))) == 0
}

// sized reads a 32-bit length and that many bytes.
func sized(r *cursor.Cursor) []byte {
	n := r.U32()
	if n > maxDataBytes {
		r.Err = fmt.Errorf("event data of %d bytes, at most %d allowed", n, maxDataBytes)
	}
	return r.Take(int(n))
}

const (
	specSignature  = "Spec ID Event03\x00"
	agentSignature = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // CoCo's agent, in a log without the firmware's
	algSHA384      = 0x000c
)

// header reads the first event, in the old format (TCG_PCClientPCREvent), whose
// data (TCG_EfiSpecIDEvent) lists the digest algorithms of all others and their
// sizes.
func header(r *cursor.Cursor) map[uint16]int {
	r.Take(4) // register
	if t := Type(r.U32()); r.Err == nil && t != NoAction {
		r.Err = fmt.Errorf("first event has type %#x, expected %#x", uint32(t), uint32(NoAction))
	}
	r.Take(20) // SHA-1 digest
	s := cursor.New(sized(r))
	if r.Err != nil {
		return nil
	}
	if sig := string(s.Take(16)); s.Err == nil && sig != specSignature && sig != agentSignature {
		s.Err = fmt.Errorf("signature %q, expected %q", sig, specSignature)
	}
	s.Take(8) // class, version
	sizes := algorithms(s)
	// Vendor information: one byte of length, then that much and no more.
	if n := s.Take(1); s.Err == nil && len(s.Rest()) != int(n[0]) {
		s.Err = fmt.Errorf("vendor information of %d bytes, %d left", n[0], len(s.Rest()))
	}
	r.Err = s.Err
	return sizes
}

func algorithms(r *cursor.Cursor) map[uint16]int {
	n := r.U32()
	if r.Err == nil && (n == 0 || n > maxAlgorithms) {
		r.Err = fmt.Errorf("%d digest algorithms, expected 1 to %d", n, maxAlgorithms)
	}
	sizes := map[uint16]int{}
	for i := uint32(0); i < n && r.Err == nil; i++ {
		id, size := r.U16(), int(r.U16())
		if _, twice := sizes[id]; r.Err == nil && (twice || size == 0 || size > 64) {
			r.Err = fmt.Errorf("digest algorithm %#x of %d bytes", id, size)
		}
		sizes[id] = size
	}
	if r.Err == nil && sizes[algSHA384] != len(kbs.Digest{}) {
		r.Err = errors.New("no SHA-384 digests, which RTMRs need")
	}
	return sizes
}

// event reads one TCG_PCR_EVENT2. Its index is an EFI_CC_MR_INDEX: 0 for the
// MRTD, 1 to 4 for RTMR 0 to 3.
func event(r *cursor.Cursor, algorithms map[uint16]int) Event {
	index, t := r.U32(), Type(r.U32())
	if index > 4 {
		r.Err = fmt.Errorf("register index %d, expected 0 to 4", index)
	}
	return Event{Register: int(index) - 1, Type: t, Digest: digests(r, algorithms), Data: sized(r)}
}

// digests reads the digests of an event and returns the SHA-384 one. Firmware
// writes one for each algorithm that the header declares; an agent that begins
// a log of its own (CoCo's) declares several and writes only the SHA-384 one.
func digests(r *cursor.Cursor, algorithms map[uint16]int) (d kbs.Digest) {
	n := r.U32()
	if r.Err == nil && (n == 0 || int64(n) > int64(len(algorithms))) {
		r.Err = fmt.Errorf("%d digests, expected 1 to %d as the header declares", n, len(algorithms))
	}
	seen := map[uint16]bool{}
	for i := uint32(0); i < n && r.Err == nil; i++ {
		alg := r.U16()
		size, known := algorithms[alg]
		if r.Err == nil && (!known || seen[alg]) {
			r.Err = fmt.Errorf("digest algorithm %#x, which the header does not declare or which appears twice", alg)
		}
		seen[alg] = true
		if value := r.Take(size); alg == algSHA384 {
			copy(d[:], value)
		}
	}
	if r.Err == nil && !seen[algSHA384] {
		r.Err = errors.New("no SHA-384 digest, expected 1")
	}
	return d
}
