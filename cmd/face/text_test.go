package face

import (
	"strings"
	"testing"
)

func TestShortAndPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "abc": "abc", "\x1b[2Jx": "?[2Jx", "a\nb": "a?b",
		strings.Repeat("ä", 40): strings.Repeat("ä", shortLength-1) + "…",
	} {
		if got := Short(in); got != want {
			t.Errorf("Short(%q) = %q", in, got)
		}
	}
}
