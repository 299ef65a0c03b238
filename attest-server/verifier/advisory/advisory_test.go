package advisory

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// text is a good table, with old in it replaced.
func text(replace ...string) []byte {
	return []byte(strings.NewReplacer(replace...).Replace(`{"format":1,"version":7,"date":"2026-11-30",
"silicon":[{"cpuid":"19/01/1","product":"Milan","name":"B1"},{"cpuid":"19/01/2","product":"Milan","name":"X"},{"cpuid":"19/a0/2","product":"Genoa","name":"Siena"}],
"advisories":[
{"id":"AMD-SB-1","title":"one","source":"here","floors":[{"cpuid":"19/01/1","tcb":{"snp":29,"microcode":5},"mitigation_bits":[4]},{"cpuid":"19/01/2","tcb":{"snp":28,"microcode":9},"platform_bits":[6]}]},
{"id":"AMD-SB-2","title":"two","source":"here","warning":true,"floors":[{"cpuid":"19/01/2"}]},
{"id":"INTEL-SA-3","title":"three","source":"there","tdx":{"evaluation":20,"module_svns":{"1":11}}}]}`))
}

// TestBuiltin: the built-in table is good, and one version of it has one text:
// who changes table.json counts its version up and writes its digest here.
func TestBuiltin(t *testing.T) {
	b, err := Builtin()
	if err != nil {
		t.Fatal(err)
	}
	const want = "version 1: dd6db6ed52344333"
	if got := fmt.Sprintf("version %d: %.16s", b.Version, b.Digest()); got != want {
		t.Errorf("%s, expected %s", got, want)
	}
	for _, a := range b.Advisories {
		if !a.Checked && !strings.HasPrefix(a.Source, "second hand") {
			t.Errorf("%s: %q is neither checked nor second hand", a.ID, a.Source)
		}
	}
	again, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(again); err != nil {
		t.Errorf("what is shown as JSON is no table: %v", err)
	}
}

// TestParseRefuses: tables that contradict themselves, ask for nothing, or try
// to reach what reads them.
func TestParseRefuses(t *testing.T) {
	if _, err := Parse(text()); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty":                    nil,
		"cut":                      text()[:400],
		"two tables":               append(text(), text()...),
		"too long":                 append(text(), make([]byte, MaxBytes)...),
		"unknown member":           text(`"version"`, `"extra":1,"version"`),
		"member twice":             text(`"version":7`, `"version":7,"version":8`),
		"member in other letters":  text(`"version"`, `"Version"`),
		"floor's member twice":     text(`"snp":29`, `"snp":29,"snp":0`),
		"another format":           text(`"format":1`, `"format":2`),
		"no version":               text(`"version":7`, `"version":0`),
		"negative version":         text(`"version":7`, `"version":-7`),
		"endless version":          text(`"version":7`, `"version":9007199254740993`),
		"no date":                  text("2026-11-30", ""),
		"no such day":              text("2026-11-30", "2026-11-31"),
		"a date in other words":    text("2026-11-30", "2026-11-3"),
		"cpuid in upper case":      text("19/a0/2", "19/A0/2"),
		"cpuid with a nought":      text("19/a0/2", "19/a0/02"),
		"silicon twice":            text(`"19/a0/2"`, `"19/01/1"`),
		"no silicon":               text(`"silicon":[`, `"silicon":[],"x":[`),
		"name with an escape":      text("Siena", `\u001b[2J`),
		"no name":                  text("Siena", ""),
		"title of a page":          text("one", strings.Repeat("x", 301)),
		"advisory of nobody's":     text("AMD-SB-1", "SB-1"),
		"advisory twice":           text("AMD-SB-2", "AMD-SB-1"),
		"floor of unknown silicon": text(`[{"cpuid":"19/01/2"}]`, `[{"cpuid":"19/01/3"}]`),
		"floor twice":              text(`{"cpuid":"19/01/2","tcb"`, `{"cpuid":"19/01/1","tcb"`),
		"floor of nothing":         text(`"tcb":{"snp":29,"microcode":5},"mitigation_bits":[4]`, `"tcb":{}`),
		"warning with a floor":     text(`[{"cpuid":"19/01/2"}]`, `[{"cpuid":"19/01/2","tcb":{"snp":1}}]`),
		"bit 64":                   text("[4]", "[64]"),
		"bit -1":                   text("[4]", "[-1]"),
		"bit twice":                text("[4]", "[4,4]"),
		"SVN 256":                  text(`"snp":29`, `"snp":256`),
		"about nothing":            text(`,"tdx":{"evaluation":20,"module_svns":{"1":11}}`, ""),
		"TDX of nothing":           text(`"evaluation":20,"module_svns":{"1":11}`, ""),
		"module of no version":     text(`{"1":11}`, `{"01":11}`),
		"module SVN 0":             text(`{"1":11}`, `{"1":0}`),
		"evaluation -1":            text(`"evaluation":20`, `"evaluation":-1`),
		"warning about TDX":        text(`"source":"there"`, `"source":"there","warning":true`),
	} {
		if _, err := Parse(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLookUp: a silicon's own floors; of a product whose report names none, the
// highest of each; nothing of what is unknown.
func TestLookUp(t *testing.T) {
	table, err := Parse(text())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ product, cpuid, want string }{
		{"Milan", "19/01/1", "B1: AMD-SB-1 [SNP at least 29 microcode at least 5 mitigation bit 4 on]"},
		{"Milan", "19/01/2", "X: AMD-SB-1 [SNP at least 28 microcode at least 9 PLATFORM_INFO bit 6 on], AMD-SB-2 []"},
		{"Milan", "", "Milan, its revision not named: AMD-SB-1 [SNP at least 29 microcode at least 9 mitigation bit 4 on PLATFORM_INFO bit 6 on], AMD-SB-2 []"},
		{"Genoa", "19/a0/2", "Siena: "},
		{"Genoa", "19/a0/3", "unknown"},
		{"Genoa", "19/11/1", "unknown"},
		{"Venice", "", "unknown"},
		{"", "", "unknown"},
	} {
		name, demands, ok := table.SNP(tt.product, tt.cpuid)
		got := "unknown"
		if ok {
			var all []string
			for _, d := range demands {
				all = append(all, fmt.Sprintf("%s %v", d.Advisory.ID, d.Floor.Asks()))
			}
			got = name + ": " + strings.Join(all, ", ")
		}
		if got != tt.want {
			t.Errorf("%s %q: %s, expected %s", tt.product, tt.cpuid, got, tt.want)
		}
	}
	if d := table.TDX(); len(d) != 1 || strings.Join(d[0].Asks(), ", ") != "TCB evaluation at least 20, TDX module 1 at least SVN 11" {
		t.Errorf("TDX: %+v", d)
	}
}

// TestSigned: a table counts only as its key's holder signed it, and from its
// date on.
func TestSigned(t *testing.T) {
	public, private, err := Keygen("ops.example.com")
	if err != nil {
		t.Fatal(err)
	}
	other, otherPrivate, err := Keygen("ops.example.com")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := Sign(text(), private)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open(signed, public, noon)
	if err != nil || table.Version != 7 {
		t.Fatalf("%v, %v", table, err)
	}
	day := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	if _, err := Open(signed, public, day); err != nil {
		t.Errorf("on its day: %v", err)
	}
	forged, err := Sign(text(), otherPrivate)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		b   []byte
		key string
		now time.Time
	}{
		"a day before":         {signed, public, day.Add(-1)},
		"no time":              {signed, public, time.Time{}},
		"another's key":        {signed, other, noon},
		"another's signature":  {forged, public, noon},
		"no signature":         {text(), public, noon},
		"altered":              {[]byte(strings.Replace(string(signed), `"snp":29`, `"snp":19`, 1)), public, noon},
		"cut":                  {signed[:len(signed)-9], public, noon},
		"without its end":      {signed[:300], public, noon},
		"a word before":        {append([]byte(" "), signed...), public, noon},
		"no key":               {signed, "", noon},
		"half a key":           {signed, public[:20], noon},
		"the key to sign with": {signed, string(private.Reveal()), noon},
		"too long":             {append(signed, make([]byte, MaxBytes)...), public, noon},
	} {
		if got, err := Open(tt.b, tt.key, tt.now); err == nil || got != nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "PRIVATE") || strings.Contains(err.Error(), string(private.Reveal()[30:])) {
			t.Errorf("%s: the key is in the error %v", name, err)
		} else if name != "too long" && hint.Of(err) == "" {
			t.Errorf("%s: %v has no next step", name, err)
		}
	}
	if _, err := Sign(text(`"version":7`, `"version":0`), private); err == nil {
		t.Error("a bad table was signed")
	}
	if _, err := Sign(text(), secret.New([]byte("no key"))); err == nil || strings.Contains(err.Error(), "no key") && !strings.Contains(err.Error(), "this is no key") {
		t.Errorf("signed with no key: %v", err)
	}
	if _, err := Sign(text("\n", "\n\n"), private); err == nil {
		t.Error("a table with an empty line was signed")
	}
	if _, _, err := Keygen("two words"); err == nil {
		t.Error("a key's name has a space")
	}
}

// TestFollows: neither version nor date may fall, and one version has one text.
func TestFollows(t *testing.T) {
	before := Mark{7, "2026-11-30", "aa"}
	for _, tt := range []struct {
		m    Mark
		pass bool
	}{
		{before, true},
		{Mark{8, "2026-11-30", "bb"}, true},
		{Mark{8, "2026-12-01", "bb"}, true},
		{Mark{6, "2026-12-01", "bb"}, false},
		{Mark{8, "2026-11-29", "bb"}, false},
		{Mark{7, "2026-11-30", "bb"}, false},
		{Mark{7, "2026-12-01", "bb"}, false},
		{Mark{}, false},
	} {
		if err := tt.m.Follows(before); (err == nil) != tt.pass || !tt.pass && !errors.Is(err, ErrOlder) {
			t.Errorf("%s after %s: %v", tt.m, before, err)
		}
	}
	if err := before.Follows(Mark{}); err != nil {
		t.Errorf("after none: %v", err)
	}
}

// TestLeave: what an entry allows, until when, and what two lists allow both.
func TestLeave(t *testing.T) {
	at := time.Date(2027, 1, 31, 23, 59, 59, 0, time.UTC)
	for _, tt := range []struct {
		entry, id string
		at        time.Time
		covers    bool
	}{
		{"AMD-SB-1", "AMD-SB-1", at, true},
		{"AMD-SB-1", "AMD-SB-11", at, false},
		{"AMD-SB-1", "", at, false},
		{"AMD-SB-1", Any, at, false},
		{"AMD-SB-1=2027-01-31", "AMD-SB-1", at, true},
		{"AMD-SB-1=2027-01-31", "AMD-SB-1", at.Add(time.Second), false},
		{"all", "AMD-SB-1", at, true},
		{"all", Any, at, true},
		{"all=2027-01-30", "AMD-SB-1", at, false},
		{"all", "AMD-SB-1", time.Time{}, false},
	} {
		if _, ok := LeaveFor([]string{"bad", "", tt.entry}, tt.id, tt.at); ok != tt.covers {
			t.Errorf("%s for %q at %s: %t", tt.entry, tt.id, tt.at, ok)
		}
	}
	for _, bad := range []string{"", "=", "=2027-01-31", "AMD-SB-", "amd-sb-1", "AMD-SB-1=", "AMD-SB-1=2027-02-30", "AMD-SB-1=2027-01-31T00:00:00Z", "AMD-SB-1 ", "ALL", "AMD-SB-1\n"} {
		if l, err := ParseLeave(bad); err == nil {
			t.Errorf("%q is %v", bad, l)
		}
	}
	for _, tt := range []struct{ a, b, want string }{
		{"AMD-SB-1", "AMD-SB-1", "AMD-SB-1"},
		{"AMD-SB-1", "AMD-SB-2", ""},
		{"AMD-SB-1", "", ""},
		{"all", "AMD-SB-2", "AMD-SB-2"},
		{"all=2027-01-01", "AMD-SB-2=2027-02-01", "AMD-SB-2=2027-01-01"},
		{"all=2027-02-01", "AMD-SB-2=2027-01-01", "AMD-SB-2=2027-01-01"},
		{"AMD-SB-1=2027-01-01", "AMD-SB-1", "AMD-SB-1=2027-01-01"},
		{"all=2027-01-01,AMD-SB-1", "AMD-SB-1,AMD-SB-2", "AMD-SB-1,AMD-SB-2=2027-01-01"},
		{"all,AMD-SB-1=2027-01-01", "AMD-SB-1", "AMD-SB-1"},
		{"all", "all=2027-01-01", "all=2027-01-01"},
	} {
		list := func(s string) []string { return strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) }
		for _, order := range [][2]string{{tt.a, tt.b}, {tt.b, tt.a}} {
			if got := strings.Join(Common(list(order[0]), list(order[1])), ","); got != tt.want {
				t.Errorf("%s and %s: %s, expected %s", order[0], order[1], got, tt.want)
			}
		}
	}
}

// FuzzParse: what is taken for a table is one, can be written and read again,
// and says nothing that a terminal would obey.
func FuzzParse(f *testing.F) {
	f.Add(text())
	f.Add(builtin)
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := Parse(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(table)
		if err != nil {
			t.Fatal(err)
		}
		same, err := Parse(again)
		if err != nil || same.Version != table.Version || len(same.TDX()) != len(table.TDX()) {
			t.Fatalf("%s became %v, %v", b, same, err)
		}
		for _, s := range table.Silicon {
			if _, _, ok := table.SNP(s.Product, s.CPUID); !ok {
				t.Fatalf("%s is listed and not found", s.CPUID)
			}
			if strings.ContainsAny(s.Name+s.Product, "\x1b\n") {
				t.Fatalf("%q", s)
			}
		}
	})
}

// FuzzOpen: bytes that nobody signed are no table.
func FuzzOpen(f *testing.F) {
	public, private, err := Keygen("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	signed, err := Sign(text(), private)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	f.Add(text())
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := Open(b, public, noon)
		if err == nil && table.Digest() != mustParse(t, signed, public).Digest() {
			t.Fatalf("%q was never signed", b)
		}
	})
}

func mustParse(t *testing.T, signed []byte, public string) *Table {
	t.Helper()
	table, err := Open(signed, public, noon)
	if err != nil {
		t.Fatal(err)
	}
	return table
}
