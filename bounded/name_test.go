package bounded

import (
	"regexp"
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	pattern := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,7}$`)
	tried := []string{"", "a", "12345678", "123456789", "a.b", ".a", "a\n", "\n", "é", "aé", "a\x00", strings.Repeat("z", 300)}
	for c := range 256 {
		tried = append(tried, string([]byte{byte(c)}), string([]byte{'a', byte(c)}), string([]byte{'a', byte(c), 'z'}))
	}
	for _, s := range tried {
		if got, want := Name(s, 8, Letters+Digits, Letters+Digits+"._-"), pattern.MatchString(s); got != want {
			t.Errorf("%q: %v, expected %v", s, got, want)
		}
	}
	if Name("a", 0, Letters, Letters) || Name("a", 1, "", "") {
		t.Error("a name where none is allowed")
	}
}
