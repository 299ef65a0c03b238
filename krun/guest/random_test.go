package guest

import (
	"strings"
	"testing"
)

// TestRandomIsTheProcessors: a machine without RDRAND on each processor is
// refused, and so is one that says nothing.
func TestRandomIsTheProcessors(t *testing.T) {
	cpu := func(flags string) string {
		return "processor\t: 0\nmodel name\t: rdrand\nflags\t\t: " + flags + "\nbugs\t\t: rdrand\n\n"
	}
	for name, c := range map[string]struct{ info, want string }{
		"one":                 {cpu("fpu rdrand aes"), ""},
		"two":                 {cpu("fpu rdrand") + cpu("rdrand fpu"), ""},
		"hidden":              {cpu("fpu rdseed aes"), "processor 1 has no rdrand"},
		"hidden on the other": {cpu("fpu rdrand") + cpu("fpu"), "processor 2 has no rdrand"},
		"a longer word":       {cpu("fpu rdrand_x xrdrand"), "no rdrand"},
		"vmx flags":           {"vmx flags\t: rdrand\n", "lists no processor"},
		"nothing":             {"", "lists no processor"},
	} {
		err := checkRandom(c.info)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
}
