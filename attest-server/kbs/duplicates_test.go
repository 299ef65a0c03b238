package kbs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// FuzzDuplicates compares the walk with one of encoding/json's own tokens.
func FuzzDuplicates(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, `null`, ` { "a" : [ 1 , {"b":-1.5e+3} , "x\"y" ] , "c":{} } `, `{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"a":1,"\u0061":2}`,
		`{"k":1,"\u212a":2}`, "{\"\xff\":1,\"\xfe\":2}", `{"a":{"b":1,"b":2}}`, `[{"a":1},{"a":2}]`, `{"a":"{\"a\":1}","b":"\\"}`,
		`{"a" 1}`, `{"a":1,}`, `[1,]`, `[1 2]`, `{"a":tru}`, `"x`, `{"a`, `{"a":"\`, ``, `{,}`, `[[[`, `{"a":1}{"a":1,"a":2}`,
		strings.Repeat("[", 33) + strings.Repeat("]", 33), strings.Repeat("[", 34) + strings.Repeat("]", 34), strings.Repeat(`{"a":`, 33) + "1" + strings.Repeat("}", 33),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := checkNames(b, new(any))
		if !json.Valid(b) {
			return // the decoder refuses it
		}
		if want := referenceDuplicates(b); (err == nil) != (want == nil) || err != nil && err.Error() != want.Error() {
			t.Fatalf("%q: %v, expected %v", b, err, want)
		}
	})
}

func referenceDuplicates(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return referenceValue(d, 0)
}

func referenceValue(d *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('{'):
		return referenceObject(d, depth)
	case json.Delim('['):
		for d.More() {
			if err := referenceValue(d, depth+1); err != nil {
				return err
			}
		}
		_, err = d.Token()
		return err
	}
	return nil
}

func referenceObject(d *json.Decoder, depth int) error {
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
		if err := referenceValue(d, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}
