package eventlog

import (
	"encoding/binary"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Fixed parts (TCG_PCClientPCREvent, TCG_EfiSpecIDEvent).
const (
	legacyHeadBytes = 4 + 4 + 20 // register, type, SHA-1 digest
	specSignature   = "Spec ID Event03\x00"
	agentSignature  = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // CoCo's agent, in a log without the firmware's
	specHeadBytes   = 16 + 4 + 4 + 4                                                     // signature, class, version, number of algorithms
	algSHA384       = 0x000c
)

// header reads the first event, in the old format, which lists the digest
// algorithms of all others and their sizes.
func (r *reader) header() (map[uint16]int, error) {
	head, err := r.take(legacyHeadBytes)
	if err != nil {
		return nil, err
	}
	if t := Type(binary.LittleEndian.Uint32(head[4:])); t != NoAction {
		return nil, fmt.Errorf("first event has type %#x, expected %#x: %w", t, NoAction, ErrFormat)
	}
	body, err := r.sized()
	if err != nil {
		return nil, err
	}
	s := reader{rest: body}
	spec, err := s.take(specHeadBytes)
	if err != nil {
		return nil, err
	}
	if sig := string(spec[:16]); sig != specSignature && sig != agentSignature {
		return nil, fmt.Errorf("signature %q, expected %q: %w", spec[:16], specSignature, ErrFormat)
	}
	algorithms, err := s.algorithms(binary.LittleEndian.Uint32(spec[24:]))
	if err != nil {
		return nil, err
	}
	// Vendor information: one byte of length, then that much and no more.
	n, err := s.take(1)
	if err != nil {
		return nil, err
	}
	if len(s.rest) != int(n[0]) {
		return nil, fmt.Errorf("vendor information of %d bytes, %d left: %w", n[0], len(s.rest), ErrFormat)
	}
	return algorithms, nil
}

func (r *reader) algorithms(n uint32) (map[uint16]int, error) {
	if n == 0 || n > maxAlgorithms {
		return nil, fmt.Errorf("%d digest algorithms, expected 1 to %d: %w", n, maxAlgorithms, ErrFormat)
	}
	sizes := make(map[uint16]int, n)
	for range n {
		b, err := r.take(4)
		if err != nil {
			return nil, err
		}
		id, size := binary.LittleEndian.Uint16(b), int(binary.LittleEndian.Uint16(b[2:]))
		if _, twice := sizes[id]; twice || size == 0 || size > 64 {
			return nil, fmt.Errorf("digest algorithm %#x of %d bytes: %w", id, size, ErrFormat)
		}
		sizes[id] = size
	}
	if sizes[algSHA384] != len(kbs.Digest{}) {
		return nil, fmt.Errorf("no SHA-384 digests, which RTMRs need: %w", ErrFormat)
	}
	return sizes, nil
}

// event reads one TCG_PCR_EVENT2. Its index is an EFI_CC_MR_INDEX: 0 for the
// MRTD, 1 to 4 for RTMR 0 to 3.
func (r *reader) event(algorithms map[uint16]int) (e Event, err error) {
	head, err := r.take(8)
	if err != nil {
		return e, err
	}
	index := binary.LittleEndian.Uint32(head)
	if index > 4 {
		return e, fmt.Errorf("register index %d, expected 0 to 4: %w", index, ErrFormat)
	}
	e.Register, e.Type = int(index)-1, Type(binary.LittleEndian.Uint32(head[4:]))
	if e.Digest, err = r.digests(algorithms); err != nil {
		return e, err
	}
	e.Data, err = r.sized()
	return e, err
}

// digests reads the digests of an event and returns the SHA-384 one. Firmware
// writes one for each algorithm that the header declares; an agent that begins
// a log of its own (CoCo's) declares several and writes only the SHA-384 one.
func (r *reader) digests(algorithms map[uint16]int) (d kbs.Digest, err error) {
	n, err := r.u32()
	if err != nil {
		return d, err
	}
	if n == 0 || int64(n) > int64(len(algorithms)) {
		return d, fmt.Errorf("%d digests, expected 1 to %d as the header declares: %w", n, len(algorithms), ErrFormat)
	}
	seen := make(map[uint16]bool, n)
	for range n {
		id, err := r.take(2)
		if err != nil {
			return d, err
		}
		alg := binary.LittleEndian.Uint16(id)
		size, known := algorithms[alg]
		if !known || seen[alg] {
			return d, fmt.Errorf("digest algorithm %#x, which the header does not declare or which appears twice: %w", alg, ErrFormat)
		}
		seen[alg] = true
		value, err := r.take(size)
		if err != nil {
			return d, err
		}
		if alg == algSHA384 {
			copy(d[:], value)
		}
	}
	if !seen[algSHA384] {
		return d, fmt.Errorf("no SHA-384 digest, expected 1: %w", ErrFormat)
	}
	return d, nil
}
