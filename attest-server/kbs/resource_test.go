package kbs

import (
	"strings"
	"testing"
)

// TestParseResourceID takes what CoCo's clients may ask for, and no path.
func TestParseResourceID(t *testing.T) {
	for _, good := range []string{"shop/tls/key", "_shop/-tls/k.e-y_", "-/_/1", strings.Repeat("a", 64) + "/b/c"} {
		if id, err := ParseResourceID(good); err != nil || id.String() != good {
			t.Errorf("%s: %v, %v", good, id, err)
		}
	}
	for _, bad := range []string{"", "a/b", "a/b/c/d", "a//c", "./b/c", "../b/c", ".a/b/c", "a/b/c ", "a/b/c%2f", "a/b/ü", strings.Repeat("a", 65) + "/b/c", "a/b/c\n"} {
		if id, err := ParseResourceID(bad); err == nil {
			t.Errorf("%q: %v", bad, id)
		}
	}
}
