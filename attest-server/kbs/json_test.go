package kbs

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/gowebpki/jcs"
)

func TestUnmarshalStrictRefuses(t *testing.T) {
	type inner struct {
		A int    `json:"a"`
		K string `json:"k"`
	}
	good := `{"a":1,"k":"x"}`
	if err := UnmarshalStrict([]byte(good), &inner{}); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"empty":                   "",
		"unknown member":          `{"a":1,"b":2}`,
		"duplicate":               `{"a":1,"a":2}`,
		"duplicate by case":       `{"a":1,"A":2}`,
		"duplicate by Kelvin":     "{\"k\":\"x\",\"\u212a\":\"y\"}",
		"duplicate by escape":     `{"a":1,"\u0061":2}`,
		"trailing value":          good + good,
		"trailing garbage":        good + "x",
		"trailing bracket":        good + "}",
		"array":                   `[1]`,
		"unfinished":              `{"a":1`,
		"string for number":       `{"a":"1"}`,
		"too deep":                strings.Repeat("[", 40) + strings.Repeat("]", 40),
		"too deep in an unknown":  `{"x":` + strings.Repeat(`{"x":`, 40) + "1" + strings.Repeat("}", 41),
		"number out of its range": `{"a":1e400}`,
	} {
		if err := UnmarshalStrict([]byte(s), &inner{}); err == nil {
			t.Errorf("%s accepted: %s", name, s)
		}
	}
}

// TestMisspeltMembers: encoding/json takes a member's name in any case of its
// letters, wherever the member is. What the type leaves open stays free.
func TestMisspeltMembers(t *testing.T) {
	type Base struct {
		Kind string `json:"kind"`
	}
	type outer struct {
		Base
		*Problem `json:"p"`
		Plain    int
		Deep     []map[string]*Base `json:"deep"`
		Free     map[string]string  `json:"free"`
		Any      any                `json:"any"`
		Own      json.RawMessage    `json:"own"`
		Skipped  int                `json:"-"`
	}
	for text, want := range map[string]bool{
		`{"Plain":1,"any":{"Kind":1},"deep":[{"Kind":{"kind":"x"}}],"free":{"KIND":"x"},"kind":"x","own":{"KIND":1},"p":{"code":"x"}}`: true,
		`{"plain":1}`:                 false,
		`{"KIND":"x"}`:                false,
		"{\"\u212aind\":\"x\"}":       false,
		`{"\u004bind":"x"}`:           false,
		`{"p":{"Code":"x"}}`:          false,
		`{"Deep":[]}`:                 false,
		`{"deep":[{"a":{"Kind":1}}]}`: false,
		`{"deep":[{},{"a":null,"b":{"kind":"x"},"c":{"kinD":"x"}}]}`: false,
	} {
		for name, decode := range map[string]func([]byte, any) error{"strict": UnmarshalStrict, "open": UnmarshalOpen} {
			err := decode([]byte(text), &outer{})
			if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "misspelt") {
				t.Errorf("%s, %s: %v", name, text, err)
			}
		}
		if c, err := jcs.Transform([]byte(text)); err != nil || (UnmarshalCanonical(c, &outer{}) == nil) != want {
			t.Errorf("canonical, %s: %v", text, err)
		}
	}
}

func TestDecodeStrictBounds(t *testing.T) {
	var v []int
	if err := DecodeStrict(strings.NewReader("[1,2]"), 5, &v); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if err := DecodeStrict(strings.NewReader("[1,2] "), 5, &v); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
}

func TestUnmarshalCanonicalRefusesOtherSpellings(t *testing.T) {
	var v map[string]any
	if err := UnmarshalCanonical([]byte(`{"a":1,"b":"ü"}`), &v); err != nil {
		t.Errorf("canonical form: %v", err)
	}
	for _, s := range []string{`{"b":"ü","a":1}`, `{"a": 1}`, `{"a":1.0}`, `{"a":"\u0061"}`, "{\"a\":1}\n", ` {"a":1}`} {
		if err := UnmarshalCanonical([]byte(s), &v); err == nil {
			t.Errorf("accepted: %s", s)
		}
	}
}

func TestDigestText(t *testing.T) {
	d := Sum384([]byte("x"))
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var back Digest
	if err := json.Unmarshal(b, &back); err != nil || back != d {
		t.Errorf("round trip: %v", err)
	}
	if _, err := json.Marshal(Digest{}); !errors.Is(err, ErrZeroDigest) {
		t.Errorf("zero digest was written: %v", err)
	}
	for name, s := range map[string]string{
		"zero":       strings.Repeat("0", 96),
		"upper case": strings.ToUpper(d.String()),
		"short":      d.String()[:94],
		"long":       d.String() + "00",
		"no hex":     "g" + d.String()[1:],
		"empty":      "",
	} {
		var x Digest
		var y LaunchDigest
		if x.UnmarshalText([]byte(s)) == nil || y.UnmarshalText([]byte(s)) == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

func FuzzUnmarshalStrict(f *testing.F) {
	for _, s := range []string{`{"version":1,"tee":"snp","workload_id":"a"}`, `{"a":[{}]}`, `[[[[`, "null", `{"":{"":{}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req AttestRequest
		if UnmarshalStrict(b, &req) != nil {
			return
		}
		// What was accepted has one meaning: it survives a round trip.
		out, err := json.Marshal(req)
		if errors.Is(err, ErrZeroDigest) {
			return // a member was left out
		}
		if err != nil {
			t.Fatal(err)
		}
		var again AttestRequest
		if err := UnmarshalStrict(out, &again); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if out2, _ := json.Marshal(again); !bytes.Equal(out, out2) {
			t.Fatalf("%s became %s", out, out2)
		}
	})
}

// FuzzUnmarshalCanonical: what is accepted is its own canonical form.
func FuzzUnmarshalCanonical(f *testing.F) {
	reg, err := Canonical(Registration{Version: 1, WorkloadID: "a", IdentityDigest: Digest{1}, FooterDigest: Digest{2}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reg)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var v any
		if UnmarshalCanonical(b, &v) != nil {
			return
		}
		c, err := Canonical(v)
		if err != nil || !bytes.Equal(b, c) {
			t.Fatalf("%q is canonical as %q, %v", b, c, err)
		}
	})
}

func FuzzProblem(f *testing.F) {
	f.Add([]byte(`{"type":"about:blank","title":"t","status":403,"code":"attestation_denied","session":"s"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Problem
		if DecodeStrict(bytes.NewReader(b), MaxAnswerBody, &p) == nil {
			e := &ProblemError{Problem: p}
			_, _, _ = e.Error(), e.Hint(), e.final()
		}
	})
}
