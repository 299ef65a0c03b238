package krun

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The footer of a workload disk: zero padding to 4096 · JSON · "KRUN" · its
// length, 64-bit little endian, at the very end of the device.
const (
	footerMagic = "KRUN"
	footerTail  = 12
	// FooterAlign is what the disk's size is a multiple of.
	FooterAlign = 4096
	// MaxFooterBytes bounds the JSON of a footer; ours are under 1 KiB.
	MaxFooterBytes = 64 << 10
)

// ErrNoFooter reports a disk without the KRUN magic at its end.
var ErrNoFooter = errors.New("no KRUN footer at the end of the disk")

// Footer is the JSON found at the end of a disk. It is the host's word:
// a hint, to be proven against the identity.
type Footer struct {
	JSON  []byte
	Start int64 // offset of the first byte of JSON
}

// AppendFooter returns padding and footer for a disk whose payload ends at
// offset end, so that the disk's size is a multiple of FooterAlign.
func AppendFooter(end int64, json []byte) []byte {
	tail := int64(len(json) + footerTail)
	pad := (FooterAlign - (end+tail)%FooterAlign) % FooterAlign
	out := make([]byte, pad, pad+tail)
	out = append(out, json...)
	out = append(out, footerMagic...)
	return binary.LittleEndian.AppendUint64(out, uint64(len(json)))
}

// ReadFooter reads the footer of a disk of size bytes.
func ReadFooter(r io.ReaderAt, size int64) (*Footer, error) {
	if size < footerTail {
		return nil, fmt.Errorf("disk of %d bytes: %w", size, ErrNoFooter)
	}
	var tail [footerTail]byte
	if _, err := r.ReadAt(tail[:], size-footerTail); err != nil {
		return nil, fmt.Errorf("reading disk footer: %w", err)
	}
	if string(tail[:4]) != footerMagic {
		return nil, ErrNoFooter
	}
	n := binary.LittleEndian.Uint64(tail[4:])
	if n == 0 || n > MaxFooterBytes || int64(n) > size-footerTail {
		return nil, fmt.Errorf("disk footer claims %d bytes, expected 1 to %d within the disk", n, MaxFooterBytes)
	}
	f := &Footer{JSON: make([]byte, n), Start: size - footerTail - int64(n)}
	if _, err := r.ReadAt(f.JSON, f.Start); err != nil {
		return nil, fmt.Errorf("reading disk footer: %w", err)
	}
	return f, nil
}
