package kbs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
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

// DecodeStrict reads one JSON value of at most limit bytes into v. Members that
// are unknown, duplicate or in other letters, as "Nonce" for "nonce", trailing
// data and bodies over the limit are errors.
func DecodeStrict(r io.Reader, limit int64, v any) error {
	var buf bytes.Buffer
	buf.Grow(int(min(limit, 16<<10))) // of a usual body; ReadAll would begin with 512 bytes
	_, err := buf.ReadFrom(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	b := buf.Bytes()
	if int64(len(b)) > limit {
		return fmt.Errorf("JSON of more than %d bytes: %w", limit, ErrTooLarge)
	}
	return UnmarshalStrict(b, v)
}

// UnmarshalStrict is DecodeStrict for bytes already bounded.
func UnmarshalStrict(b []byte, v any) error {
	if err := checkNames(b, v); err != nil {
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

// UnmarshalOpen is UnmarshalStrict that lets unknown members pass, but not known
// ones in other letters: for protocols of others, whose newer clients may send
// more.
func UnmarshalOpen(b []byte, v any) error {
	if err := checkNames(b, v); err != nil {
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

// checkNames walks the value once, for what encoding/json lets pass: it would
// silently let the last of two equal names win, and take a name in any case of
// its letters, so that the two ends could disagree on what was said. Where b is
// no JSON it ends without an error: the decoder says what is wrong.
//
// Its own walk, since that of json.Decoder's tokens costs more than decoding.
func checkNames(b []byte, v any) error {
	w := walk{b: b, members: map[reflect.Type]map[string]member{}}
	return w.value(0, shape(reflect.TypeOf(v)))
}

// walk is how far a JSON text has been walked.
type walk struct {
	b []byte
	i int

	members map[reflect.Type]map[string]member // of the structs met so far
}

// next skips white space and returns the byte that follows it, 0 at the end.
func (w *walk) next() byte {
	for ; w.i < len(w.b); w.i++ {
		switch c := w.b[w.i]; c {
		case ' ', '\t', '\n', '\r':
		default:
			return c
		}
	}
	return 0
}

// end stops the walk: this is no JSON.
func (w *walk) end() { w.i = len(w.b) }

func (w *walk) value(depth int, t reflect.Type) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	switch w.next() {
	case '{':
		return w.object(depth, t)
	case '[':
		return w.array(depth, element(t))
	case '"':
		w.text()
	default:
		for w.i < len(w.b) && !strings.ContainsRune(" \t\n\r,]}", rune(w.b[w.i])) {
			w.i++
		}
	}
	return nil
}

func (w *walk) array(depth int, of reflect.Type) error {
	w.i++
	if w.next() == ']' {
		w.i++
		return nil
	}
	for {
		if err := w.value(depth+1, of); err != nil {
			return err
		}
		c := w.next()
		w.i++
		if c != ',' {
			if c != ']' {
				w.end()
			}
			return nil
		}
	}
}

func (w *walk) object(depth int, t reflect.Type) error {
	w.i++
	if w.next() == '}' {
		w.i++
		return nil
	}
	seen := map[string]bool{}
	for {
		if w.next() != '"' {
			w.end()
			return nil
		}
		name := memberName(w.text())
		folded := fold(name)
		if seen[folded] {
			return fmt.Errorf("JSON member %q appears twice", name)
		}
		seen[folded] = true
		of, err := w.member(t, name, folded)
		if err != nil {
			return err
		}
		if w.next() != ':' {
			w.end()
			return nil
		}
		w.i++
		if err := w.value(depth+1, of); err != nil {
			return err
		}
		c := w.next()
		w.i++
		if c != ',' {
			if c != '}' {
				w.end()
			}
			return nil
		}
	}
}

// text is the string that begins here, with its quotes.
func (w *walk) text() []byte {
	start := w.i
	for end := start + 1; ; {
		n := bytes.IndexByte(w.b[end:], '"')
		if n < 0 {
			w.end()
			return nil
		}
		end += n + 1
		before := w.b[start+1 : end-1]
		if escapes := len(before) - len(bytes.TrimRight(before, "\\")); escapes%2 == 0 {
			w.i = end
			return w.b[start:end]
		}
	}
}

// memberName is what encoding/json makes of a quoted string.
func memberName(quoted []byte) string {
	plain := func(c byte) bool { return c >= ' ' && c < 0x80 && c != '\\' }
	if len(quoted) >= 2 && !slices.ContainsFunc(quoted, func(c byte) bool { return !plain(c) }) {
		return string(quoted[1 : len(quoted)-1])
	}
	var name string
	if err := json.Unmarshal(quoted, &name); err != nil {
		return "" // the decoder refuses it
	}
	return name
}

// fold is the spelling under which encoding/json takes two names for one:
// it would let {"nonce":A,"Nonce":B} mean B where another parser reads A.
func fold(name string) string {
	if !strings.ContainsFunc(name, func(r rune) bool { return r >= 0x80 || 'A' <= r && r <= 'Z' }) {
		return name
	}
	return strings.ToLower(strings.ToUpper(name))
}
