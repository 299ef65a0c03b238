package btrfs

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Options say what the file system is to be. Nothing is random and no clock is
// read, so the same tree and options give the same bytes.
type Options struct {
	UUID  [16]byte  // must not be zero; all other UUIDs on the disk follow from it
	Label string    // volume name, at most 255 bytes
	Time  time.Time // when the file system was "made"; zero: the Unix epoch
}

func (o Options) check() (Options, error) {
	switch {
	case o.UUID == [16]byte{}:
		return o, errors.New("planning BTRFS: UUID must not be zero")
	case len(o.Label) > 255:
		return o, fmt.Errorf("planning BTRFS: label must have at most 255 bytes, got %d", len(o.Label))
	}
	if o.Time.IsZero() {
		o.Time = time.Unix(0, 0)
	}
	return o, nil
}

// ids are the UUIDs besides the file system's own.
type ids struct{ device, chunkTree, subvolume [16]byte }

func (o Options) ids() ids {
	derive := func(what string) [16]byte {
		sum := sha256.Sum256(append([]byte("ccrun btrfs "+what+" UUID v1\x00"), o.UUID[:]...))
		u := [16]byte(sum[:16])
		u[6], u[8] = u[6]&0x0f|0x80, u[8]&0x3f|0x80 // RFC 9562, version 8
		return u
	}
	return ids{derive("device"), derive("chunk tree"), derive("subvolume")}
}
