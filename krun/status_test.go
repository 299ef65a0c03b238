package krun

import (
	"strings"
	"testing"
)

func TestStatusLine(t *testing.T) {
	for status := range 256 {
		for _, prefix := range []string{"", "[2026-11-30T06:26:18.117380Z ERROR init_or_kernel] "} {
			if got, ok := ParseStatusLine(prefix + StatusLine(status)); !ok || got != status {
				t.Errorf("%q%q: %d, %v", prefix, StatusLine(status), got, ok)
			}
		}
	}
	for _, line := range []string{"", "ccrun: exit status", "ccrun: exit status 256", "ccrun: exit status -1", "ccrun: exit status 7 ", " ccrun: exit status 7",
		"x ccrun: exit status 7", "ccrun: exit status 7\n", "[" + strings.Repeat("x", 100) + " init_or_kernel] ccrun: exit status 7", "ccrun: exit status 0007"} {
		if got, ok := ParseStatusLine(line); ok {
			t.Errorf("%q is taken for status %d", line, got)
		}
	}
}
