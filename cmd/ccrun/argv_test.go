package main

import (
	"strings"
	"testing"
)

func TestIntersperse(t *testing.T) {
	for in, want := range map[string]string{
		"ccrun quadlet IMG -p 1:1 --name x":      "ccrun quadlet -p 1:1 --name x IMG",
		"ccrun run --rm IMG -p 1:1":              "ccrun run --rm IMG -p 1:1",
		"ccrun -q run IMG sh -c x":               "ccrun -q run IMG sh -c x",
		"ccrun quadlet IMG -- -x":                "ccrun quadlet IMG -- -x",
		"ccrun quadlet --name=x IMG -q IMG2":     "ccrun quadlet --name=x -q IMG IMG2",
		"ccrun --log-level debug quadlet IMG -q": "ccrun --log-level debug quadlet -q IMG",
		"ccrun bogus --x":                        "ccrun bogus --x",
		"ccrun":                                  "ccrun",
	} {
		if got := strings.Join(intersperse(newApp(), strings.Fields(in)), " "); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
