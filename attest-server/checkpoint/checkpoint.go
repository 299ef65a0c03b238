// Package checkpoint is the audit log as foreign tools read it: an RFC 6962
// Merkle tree, its head as a C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint)
// in a signed note (https://c2sp.org/signed-note), and what witnesses add to it
// (https://c2sp.org/tlog-cosignature). It does not know what an entry is.
package checkpoint

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	// MaxBytes bounds a checkpoint with all its signatures.
	MaxBytes = 16 << 10
	// maxSignatures bounds what one checkpoint has us verify, and maxLines its
	// text.
	maxSignatures = 32
	maxLines      = 16
	maxOrigin     = 255
)

// ErrForm reports what is no checkpoint.
var ErrForm = errors.New("not a checkpoint")

// ErrArchived says that what a proof needs is in an archive, and no longer at hand.
var ErrArchived = errors.New("the entries are in an archive")

// Hash is one of the tree's.
type Hash = tlog.Hash

// Checkpoint is the head of a log's tree.
type Checkpoint struct {
	Origin string // names the log, and its keys
	Size   int64  // entries
	Root   Hash
}

// Text is what is signed.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n", c.Origin, c.Size, c.Root)
}

// parseText reads a note's text. Lines behind the third are extensions, which
// nobody who does not know them may take for anything.
func parseText(text string) (c Checkpoint, err error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 || len(lines) > maxLines || !strings.HasSuffix(text, "\n") {
		return c, fmt.Errorf("%w: %d lines, expected origin, size and root", ErrForm, len(lines))
	}
	for _, extension := range lines[3:] {
		if extension == "" {
			return c, fmt.Errorf("%w: an empty line in it", ErrForm)
		}
	}
	c.Origin = lines[0]
	if c.Origin == "" || len(c.Origin) > maxOrigin {
		return c, fmt.Errorf("%w: origin of %d bytes, expected 1 to %d", ErrForm, len(c.Origin), maxOrigin)
	}
	c.Size, err = strconv.ParseInt(lines[1], 10, 64)
	if err != nil || c.Size < 0 || strconv.FormatInt(c.Size, 10) != lines[1] {
		return c, fmt.Errorf("%w: size %q, expected a decimal number", ErrForm, lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return c, fmt.Errorf("%w: root %q, expected %d bytes in base64", ErrForm, lines[2], tlog.HashSize)
	}
	c.Root = tlog.Hash(root)
	return c, nil
}

// Verifier knows one key of a log or of a witness.
type Verifier interface {
	note.Verifier
	String() string
}

// Signed is a checkpoint whose log's signature was verified, and the cosignatures
// that were.
type Signed struct {
	Checkpoint
	Note []byte // as it came, with all signatures
	// By are the log's keys, and Cosigned the witnesses, that were asked for and
	// have signed, by name.
	By, Cosigned []string
}

// Open reads a checkpoint that one of the keys of its log must have signed. Of
// the cosignatures those by the witnesses are verified; whoever needs one looks
// for it in Cosigned. A signature by a known key that is wrong is an error, even
// where another is right.
func Open(b []byte, log []Verifier, witnesses ...Verifier) (s Signed, err error) {
	if len(b) > MaxBytes {
		return s, fmt.Errorf("%w: %d bytes, expected at most %d", ErrForm, len(b), MaxBytes)
	}
	if strings.Count(string(b), "\n— ") > maxSignatures {
		return s, fmt.Errorf("%w: more than %d signatures", ErrForm, maxSignatures)
	}
	n, err := note.Open(b, verifiers(log, witnesses))
	if err != nil {
		return s, fmt.Errorf("opening checkpoint: %w", err)
	}
	if s.Checkpoint, err = parseText(n.Text); err != nil {
		return s, err
	}
	for _, sig := range n.Sigs {
		if has(log, sig) && sig.Name == s.Origin {
			s.By = append(s.By, sig.Name)
		} else if has(witnesses, sig) {
			s.Cosigned = append(s.Cosigned, sig.Name)
		}
	}
	if len(s.By) == 0 {
		return s, fmt.Errorf("opening checkpoint of %q: none of its log's keys has signed", s.Origin)
	}
	s.Note = b
	return s, nil
}

func verifiers(lists ...[]Verifier) note.Verifiers {
	var all []note.Verifier
	for _, list := range lists {
		for _, v := range list {
			all = append(all, v)
		}
	}
	return note.VerifierList(all...)
}

// OpenCosigned is the names of those witnesses that have signed b, whoever's log
// it is of. It is an error if none has.
func OpenCosigned(b []byte, witnesses ...Verifier) (names []string, err error) {
	n, err := note.Open(b, verifiers(witnesses))
	if err != nil {
		return nil, fmt.Errorf("opening cosignatures: %w", err)
	}
	for _, sig := range n.Sigs {
		names = append(names, sig.Name)
	}
	return names, nil
}

func has(list []Verifier, sig note.Signature) bool {
	for _, v := range list {
		if v.Name() == sig.Name && v.KeyHash() == sig.Hash {
			return true
		}
	}
	return false
}

// Peek reads a checkpoint without any key: whatever it says, nobody vouches for.
func Peek(b []byte) (Checkpoint, error) {
	if len(b) > MaxBytes {
		return Checkpoint{}, fmt.Errorf("%w: %d bytes, expected at most %d", ErrForm, len(b), MaxBytes)
	}
	_, err := note.Open(b, nil)
	var unverified *note.UnverifiedNoteError
	if !errors.As(err, &unverified) {
		return Checkpoint{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	return parseText(unverified.Note.Text)
}

// Merge is the checkpoint of a with the signatures of b, which must be of the
// same text, behind its own.
func Merge(a, b []byte) ([]byte, error) {
	textA, sigsA, okA := Split(a)
	textB, sigsB, okB := Split(b)
	if !okA || !okB || textA != textB {
		return nil, fmt.Errorf("%w: cosignatures of another checkpoint", ErrForm)
	}
	for _, line := range strings.SplitAfter(sigsB, "\n") {
		if line != "" && !strings.Contains(sigsA, line) {
			sigsA += line
		}
	}
	if len(textA)+len(sigsA) >= MaxBytes {
		return nil, fmt.Errorf("%w: with its cosignatures longer than %d bytes", ErrForm, MaxBytes)
	}
	return []byte(textA + "\n" + sigsA), nil
}

// Split is the signed text of a note, and its signature lines.
func Split(b []byte) (text, signatures string, ok bool) {
	i := strings.LastIndex(string(b), "\n\n")
	if i < 0 {
		return "", "", false
	}
	return string(b[:i+1]), string(b[i+2:]), true
}
