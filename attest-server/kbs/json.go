package kbs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/gowebpki/jcs"
)

// ErrTooLarge reports a body over the limit its reader was given.
var ErrTooLarge = errors.New("larger than allowed")

// Canonical is v in RFC 8785 form: what is hashed, signed or compared.
func Canonical(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return jcs.Transform(b)
}

// DecodeStrict reads one JSON value of at most limit bytes into v. Unknown
// and duplicate members, trailing data and bodies over the limit are errors.
func DecodeStrict(r io.Reader, limit int64, v any) error {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(b)) > limit {
		return fmt.Errorf("JSON of more than %d bytes: %w", limit, ErrTooLarge)
	}
	return UnmarshalStrict(b, v)
}

// UnmarshalStrict is DecodeStrict for bytes already bounded.
func UnmarshalStrict(b []byte, v any) error {
	if err := checkDuplicates(b); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("data after the JSON value")
	}
	return nil
}

// UnmarshalOpen is UnmarshalStrict that lets unknown members pass: for
// protocols of others, whose newer clients may send more.
func UnmarshalOpen(b []byte, v any) error {
	if err := checkDuplicates(b); err != nil {
		return err
	}
	return json.Unmarshal(b, v) // refuses trailing data
}

// UnmarshalCanonical is UnmarshalStrict that also refuses every spelling of
// the value but its RFC 8785 form, so that one meaning has one digest.
func UnmarshalCanonical(b []byte, v any) error {
	if err := UnmarshalStrict(b, v); err != nil {
		return err
	}
	c, err := jcs.Transform(b)
	if err != nil {
		return err
	}
	if !bytes.Equal(b, c) {
		return errors.New("JSON is not in RFC 8785 canonical form")
	}
	return nil
}

const maxDepth = 32

// checkDuplicates walks the value once; encoding/json would silently let the
// last of two equal names win, and the two ends could disagree on which.
func checkDuplicates(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return checkValue(d, 0)
}

func checkValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		return checkObject(d, depth)
	case json.Delim('['):
		for d.More() {
			if err := checkValue(d, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	}
	return nil
}

func checkObject(d *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if folded := fold(name); !ok || seen[folded] {
			return fmt.Errorf("JSON member %q appears twice", name)
		} else {
			seen[folded] = true
		}
		if err := checkValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// fold is the spelling under which encoding/json takes two names for one:
// it would let {"nonce":A,"Nonce":B} mean B where another parser reads A.
func fold(name string) string { return strings.ToLower(strings.ToUpper(name)) }
