package kbs

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// An archive is a part of the audit log in a file: a line of JSON that says where
// it begins, the entries as `audit export` prints them, and the AuditBase that
// stood for them when they were cut off the log. Without its last line it is not
// whole.

// ArchiveHead is an archive's first line.
type ArchiveHead struct {
	Archive string `json:"archive"` // archiveLabel
	After   int64  `json:"after"`   // the entry before its first; 0: none
	Hash    string `json:"hash"`    // of that entry: SHA-256, hex; zeros for 0
}

// archiveEnd is its last line.
type archiveEnd struct {
	Base AuditBase `json:"base"`
}

const (
	archiveLabel = "ccrun audit archive v1"
	// maxArchiveLine bounds a line: an entry's detail can be long.
	maxArchiveLine = 256 << 10
)

// ErrArchive reports what is no archive, or not a whole one.
var ErrArchive = errors.New("not a whole archive of an audit log")

// WriteArchive writes an archive of what entries calls its argument with.
func WriteArchive(w io.Writer, after int64, hash string, entries func(each func(AuditEntry) error) error, base AuditBase) error {
	e := json.NewEncoder(w)
	if err := e.Encode(ArchiveHead{archiveLabel, after, hash}); err != nil {
		return err
	}
	err := entries(func(x AuditEntry) error { return e.Encode(x) })
	if err == nil {
		err = e.Encode(archiveEnd{base})
	}
	return err
}

// ArchiveReader reads an archive's entries in order, and checks that each links
// to the one before it.
type ArchiveReader struct {
	ArchiveHead
	lines *bufio.Reader
	seq   int64
	hash  []byte
	base  *AuditBase
}

// NewArchiveReader reads the first line.
func NewArchiveReader(r io.Reader) (*ArchiveReader, error) {
	a := &ArchiveReader{lines: bufio.NewReaderSize(r, maxArchiveLine)}
	line, err := a.line()
	if err != nil {
		return nil, err
	}
	if err := UnmarshalStrict(line, &a.ArchiveHead); err != nil {
		return nil, fmt.Errorf("%w: its first line: %w", ErrArchive, err)
	}
	a.seq = a.After
	a.hash, err = hex.DecodeString(a.Hash)
	if a.Archive != archiveLabel || err != nil || len(a.hash) != 32 || a.After < 0 || a.After == 0 && [32]byte(a.hash) != [32]byte{} {
		return nil, fmt.Errorf("%w: it begins %.120q", ErrArchive, line)
	}
	return a, nil
}

func (a *ArchiveReader) line() ([]byte, error) {
	line, err := a.lines.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF) && len(line) == 0:
		return nil, fmt.Errorf("%w: it ends behind entry %d, and its last line is missing", ErrArchive, a.seq)
	case errors.Is(err, io.EOF), errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("%w: a line behind entry %d is cut off, or longer than %d bytes", ErrArchive, a.seq, maxArchiveLine)
	}
	return line, err
}

// Next is the next entry. io.EOF: there is none, and all that should be there
// was; Base and End say what was read.
func (a *ArchiveReader) Next() (e AuditEntry, err error) {
	if a.base != nil {
		return e, io.EOF
	}
	line, err := a.line()
	if err != nil {
		return e, err
	}
	if bytes.HasPrefix(line, []byte(`{"base":`)) {
		return e, a.end(line)
	}
	if err := UnmarshalStrict(line, &e); err != nil {
		return e, fmt.Errorf("%w: behind entry %d: %w", ErrArchive, a.seq, err)
	}
	sum := e.ChainHash(a.hash)
	if e.Sequence != a.seq+1 || e.Hash != hex.EncodeToString(sum) {
		return e, fmt.Errorf("%w: entry %d does not follow entry %d", ErrArchive, e.Sequence, a.seq)
	}
	a.seq, a.hash = e.Sequence, sum
	return e, nil
}

// end reads the last line.
func (a *ArchiveReader) end(line []byte) error {
	var end archiveEnd
	if err := UnmarshalStrict(line, &end); err != nil {
		return fmt.Errorf("%w: its last line: %w", ErrArchive, err)
	}
	if err := end.Base.Verify(); err != nil {
		return fmt.Errorf("%w: %w", ErrArchive, err)
	}
	if end.Base.Sequence != a.seq || end.Base.Hash != hex.EncodeToString(a.hash) || a.seq == a.After {
		return fmt.Errorf("%w: its last line is of entry %d, and it ends with entry %d", ErrArchive, end.Base.Sequence, a.seq)
	}
	if _, err := a.lines.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: there is something behind its last line", ErrArchive)
	}
	a.base = &end.Base
	return io.EOF
}

// Base is what the last line says, once Next is io.EOF.
func (a *ArchiveReader) Base() AuditBase { return *a.base }

// End is the last entry read, and its hash.
func (a *ArchiveReader) End() (seq int64, hash string) { return a.seq, hex.EncodeToString(a.hash) }
