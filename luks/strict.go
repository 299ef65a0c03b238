package luks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const maxJSONDepth = 16

// decodeMetadata parses a JSON area: one object, then zeros to the end.
// encoding/json folds case and lets the last of two equal names win, so that
// two readers of one header could disagree; names are therefore checked first.
func decodeMetadata(areaBytes []byte) (*metadata, error) {
	js, rest, ok := bytes.Cut(areaBytes, []byte{0})
	if !ok || len(bytes.Trim(rest, "\x00")) > 0 {
		return nil, errors.New("LUKS2 metadata is not zero-terminated")
	}
	if err := checkNames(js); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(js))
	d.DisallowUnknownFields()
	var m metadata
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("decoding LUKS2 metadata: %w", err)
	}
	return &m, nil
}

// checkNames refuses repeated names and names not in lower-case ASCII, and
// anything after the first value. Tokens belong to other
// programs, so the names in them are free; else they are walked like the rest.
func checkNames(js []byte) error {
	d := json.NewDecoder(bytes.NewReader(js))
	d.UseNumber()
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("decoding LUKS2 metadata: %w", err)
	}
	if t != json.Delim('{') {
		return errors.New("LUKS2 metadata is not a JSON object")
	}
	if err := walkObject(d, 1, false); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("LUKS2 metadata has trailing data")
	}
	return nil
}

func walkObject(d *json.Decoder, depth int, free bool) error {
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return fmt.Errorf("decoding LUKS2 metadata: %w", err)
		}
		name, _ := t.(string)
		if seen[name] {
			return fmt.Errorf("LUKS2 metadata repeats %.40q", name)
		}
		seen[name] = true
		if !free && !lowerName(name) {
			return fmt.Errorf("LUKS2 metadata has the unknown name %.40q", name)
		}
		if err := walkValue(d, depth, free || depth == 1 && name == "tokens"); err != nil {
			return err
		}
	}
	_, err := d.Token() // the closing brace
	return err
}

func walkValue(d *json.Decoder, depth int, free bool) error {
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("decoding LUKS2 metadata: %w", err)
	}
	if depth >= maxJSONDepth {
		return errors.New("LUKS2 metadata is nested too deeply")
	}
	switch t {
	case json.Delim('{'):
		return walkObject(d, depth+1, free)
	case json.Delim('['):
		for d.More() {
			if err := walkValue(d, depth+1, free); err != nil {
				return err
			}
		}
		_, err := d.Token()
		return err
	}
	return nil
}

func lowerName(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return s != ""
}
