package kbs

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

// TestDecodeSecrets: nothing but an answer to exactly what was asked for.
func TestDecodeSecrets(t *testing.T) {
	value := func(name string, n int) string {
		return fmt.Sprintf(`{"name":%q,"version":1,"value":%q}`, name, base64.StdEncoding.EncodeToString([]byte(strings.Repeat("v", n))))
	}
	list := func(entries ...string) string { return `{"secrets":[` + strings.Join(entries, ",") + `]}` }
	refused := `{"name":"a/b/d","refused":"not_found"}`
	names := []string{"a/b/c", "a/b/d"}
	for name, x := range map[string]struct {
		text string
		ok   bool
	}{
		"right":            {list(value("a/b/c", 3), value("a/b/d", MaxResourceBytes)), true},
		"one refused":      {list(value("a/b/c", 3), refused), true},
		"other order":      {list(value("a/b/d", 3), value("a/b/c", 3)), false},
		"one of two":       {list(value("a/b/c", 3)), false},
		"more":             {list(value("a/b/c", 3), refused, value("a/b/e", 3)), false},
		"twice":            {list(value("a/b/c", 3), value("a/b/c", 3)), false},
		"another":          {list(value("a/b/c", 3), value("x/y/z", 3)), false},
		"empty":            {list(value("a/b/c", 0), refused), false},
		"too large":        {list(value("a/b/c", MaxResourceBytes+1), refused), false},
		"no version":       {list(`{"name":"a/b/c","value":"eA=="}`, refused), false},
		"refused, there":   {list(value("a/b/c", 3), `{"name":"a/b/d","refused":"forbidden","value":"eA=="}`), false},
		"refused, unknown": {list(value("a/b/c", 3), `{"name":"a/b/d","refused":"later"}`), false},
		"unknown member":   {list(value("a/b/c", 3), `{"name":"a/b/d","refused":"not_found","why":""}`), false},
		"no list":          {`{}`, false},
		"no JSON":          {`x`, false},
	} {
		all, err := decodeSecrets(secret.New([]byte(x.text)), names)
		if (err == nil) != x.ok || err != nil && strings.Contains(err.Error(), "vvv") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && len(all) != len(names) {
			t.Errorf("%s: %d secrets", name, len(all))
		}
	}
	for _, bad := range [][]string{nil, {"a/b"}, {"a/b/c", "a/b/c"}, {"a/../c"}, {""}, make([]string, MaxSecrets+1)} {
		if ids, err := ParseSecretNames(bad); err == nil {
			t.Errorf("%q: %v", bad, ids)
		}
	}
}
