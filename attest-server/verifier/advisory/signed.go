package advisory

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// A table that comes as a file is a signed note (C2SP signed-note): the JSON,
// an empty line, and below it who signed, with Ed25519. So table and signature
// are one file, and the key's name is part of what is compared.

// Keygen makes a key to sign tables with: the key for `advisory_key`, and the
// one to keep.
func Keygen(name string) (public string, private secret.Bytes, err error) {
	skey, vkey, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		return "", secret.Bytes{}, fmt.Errorf("making a key: %w", err)
	}
	if _, err := note.NewVerifier(vkey); err != nil {
		return "", secret.Bytes{}, fmt.Errorf("making a key named %q: expected no space and no plus sign in it: %w", name, err)
	}
	return vkey, secret.New([]byte(skey)), nil
}

// Sign is table, which must be good, as a signed note.
func Sign(table []byte, private secret.Bytes) ([]byte, error) {
	if _, err := Parse(table); err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(string(bytes.TrimSpace(private.Reveal())))
	if err != nil {
		return nil, errors.New("signing advisories: this is no key that `attest-server advisories keygen` made")
	}
	text := append(bytes.TrimRight(table, "\n"), '\n')
	if bytes.Contains(text, []byte("\n\n")) {
		return nil, errors.New("signing advisories: the table has an empty line, which in a signed note ends it")
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, signer)
	if err != nil {
		return nil, fmt.Errorf("signing advisories: %w", err)
	}
	return signed, nil
}

// Open reads a signed table that the key public vouches for, as it is now. A
// date that has not come is refused: its maker's clock or ours is wrong, and a
// table from far ahead would keep out all those to come.
func Open(signed []byte, public string, now time.Time) (*Table, error) {
	if len(signed) > MaxBytes {
		return nil, fmt.Errorf("advisories of more than %d bytes", MaxBytes)
	}
	v, err := note.NewVerifier(public)
	if err != nil {
		return nil, hint.With(fmt.Errorf("reading advisory_key: %w", err), "`attest-server advisories keygen` prints one: NAME+HASH+KEY")
	}
	n, err := note.Open(signed, note.VerifierList(v))
	if err != nil {
		return nil, hint.With(fmt.Errorf("opening advisories: expected a signed note by %s: %w", v.Name(), err), "take the file as whoever holds that key signed it, whole")
	}
	t, err := Parse([]byte(n.Text))
	if err != nil {
		return nil, err
	}
	if day, err := t.day(); err != nil || now.Before(day) {
		return nil, hint.With(fmt.Errorf("opening advisories: %s is from the future: it is %s", t, now.UTC().Format(time.DateOnly)), "check this machine's clock, or have the table signed with its right date")
	}
	return t, nil
}

// ErrOlder says that a table is older than one that was in force.
var ErrOlder = errors.New("advisories are older than those that were in force")

// Mark is what is remembered of the newest table that was in force. The zero
// value is none.
type Mark struct {
	Version int    `json:"version,omitempty"`
	Date    string `json:"date,omitempty"`
	Digest  string `json:"digest,omitempty"` // SHA-384, hex
}

// Mark is what is to be remembered of t.
func (t *Table) Mark() Mark {
	return Mark{Version: t.Version, Date: t.Date, Digest: t.digest.String()}
}

func (m Mark) String() string {
	if m == (Mark{}) {
		return "none"
	}
	return fmt.Sprintf("table %d of %s", m.Version, m.Date)
}

// Follows refuses to go from one table to an older one: neither version nor
// date may fall, and one version has one text.
func (m Mark) Follows(before Mark) error {
	older := m.Version < before.Version || m.Date < before.Date
	other := m.Version == before.Version && m.Digest != before.Digest
	switch {
	case before == Mark{}:
		return nil
	case m == Mark{} || older:
		return hint.With(fmt.Errorf("%w: %s, expected %s or a later one", ErrOlder, m, before), "bring a table that is at least as new: [policy] advisories")
	case other:
		return hint.With(fmt.Errorf("%w: another %s than the one that was in force", ErrOlder, m), "a table that differs has a greater version")
	}
	return nil
}
