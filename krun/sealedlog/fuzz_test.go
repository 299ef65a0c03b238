package sealedlog

import (
	"strings"
	"testing"
	"time"
)

// FuzzLine: what parses is written again byte for byte.
func FuzzLine(f *testing.F) {
	w := newWorld(f)
	for _, l := range w.log(f, 2, &End{}) {
		f.Add(strings.TrimSuffix(l, "\n"))
	}
	f.Add("[ccl1.AAAAAAAAAAAAAAAA.00.AAAA]")
	f.Add("[ccl1.AAAAAAAAAAAAAAAA.k.]")
	f.Fuzz(func(t *testing.T, text string) {
		l, err := parseLine(text)
		if err != nil {
			return
		}
		if got := string(l.appendTo(nil)); got != text+"\n" {
			t.Errorf("%q became %q", text, got)
		}
	})
}

// FuzzRecords: what parses is written again byte for byte.
func FuzzRecords(f *testing.F) {
	f.Add(append(append(appendRecord(nil, Stdout, time.Unix(1, 2), 3), "abc"...), 0, 0, 0))
	f.Add(append(appendRecord(appendRecord(nil, Stderr, time.Unix(0, 0), 0), Last, time.Unix(5, 0), 2), "{}"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, err := parseRecords(b)
		if err != nil {
			return
		}
		var again []byte
		for _, r := range records {
			again = append(appendRecord(again, r.Kind, r.Time, len(r.Data)), r.Data...)
		}
		again = append(again, make([]byte, len(b)-len(again))...)
		if string(again) != string(b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// FuzzReader: whatever a host makes of a log, what is shown is a part of what
// was written, in its order, and what is not the whole is said.
func FuzzReader(f *testing.F) {
	w := newWorld(f)
	log := strings.Join(w.log(f, 4, &End{}), "")
	f.Add(log, 0, 0, "")
	f.Add(log, 100, 50, "[ccl1.")
	f.Fuzz(func(t *testing.T, text string, at, n int, insert string) {
		if at < 0 || n < 0 || at > len(text) || n > len(text)-at {
			return
		}
		s := w.read(text[:at] + insert + text[at+n:])
		rest, shown := lines(0, 4), s.out.String()
		for l := range strings.Lines(shown) {
			_, after, ok := strings.Cut(rest, l)
			if !ok {
				t.Fatalf("shown: %q", shown)
			}
			rest = after
		}
		if shown != lines(0, 4) && s.tail.Ended && len(s.troubles) == 0 {
			t.Errorf("shown %q of %q without a word", shown, lines(0, 4))
		}
	})
}
