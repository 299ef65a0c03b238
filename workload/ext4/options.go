package ext4

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

const (
	blockSize    = 4096
	inodeSize    = 256
	extraIsize   = 32 // bytes of the inode used after the first 128
	maxBlocks    = 1 << 32
	maxLinks     = 65000
	minFreeBytes = 4 << 20
	freeShare    = 100 // free space by default: 1 % of the content
	spareInodes  = 100 // and inodes for as much
	sizeStep     = 64 << 10

	minJournalBlocks = 1024 // JBD2_MIN_JOURNAL_BLOCKS
)

// Options say what the file system is to be. UUID must not be zero; nothing is
// random and no clock is read, so the same tree and options give the same bytes.
type Options struct {
	SizeBytes int64     // multiple of 4096, at most 16 TiB; 0: what the content needs and FreeBytes
	FreeBytes int64     // with SizeBytes 0: space to leave free; 0: 1 % of the content, at least 4 MiB
	UUID      [16]byte  // identifies the file system and seeds its checksums
	HashSeed  [16]byte  // seeds directory hashes; zero: derived from UUID
	Label     string    // volume name, at most 16 bytes
	Time      time.Time // when the file system was "made"; zero: the Unix epoch
	Journal   bool      // with a journal, so that the root survives a crash
}

// ErrTooSmall is wrapped when the tree does not fit in Options.SizeBytes.
var ErrTooSmall = errors.New("file system is too small")

func (o Options) check() (Options, error) {
	switch {
	case o.UUID == [16]byte{}:
		return o, errors.New("planning ext4: UUID must not be zero")
	case len(o.Label) > 16:
		return o, fmt.Errorf("planning ext4: label must have at most 16 bytes, got %d", len(o.Label))
	case o.SizeBytes < 0 || o.SizeBytes%blockSize != 0 || o.SizeBytes/blockSize > maxBlocks:
		return o, fmt.Errorf("planning ext4: size must be a multiple of 4096 bytes and at most 16 TiB, got %d", o.SizeBytes)
	case o.FreeBytes < 0:
		return o, fmt.Errorf("planning ext4: free space must not be negative, got %d", o.FreeBytes)
	}
	if o.HashSeed == [16]byte{} {
		sum := sha256.Sum256(append([]byte("ccrun ext4 hash seed v1\x00"), o.UUID[:]...))
		o.HashSeed = [16]byte(sum[:16])
	}
	if o.Time.IsZero() {
		o.Time = time.Unix(0, 0)
	}
	return o, nil
}
