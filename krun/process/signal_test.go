package process

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseStopSignal(t *testing.T) {
	for in, want := range map[string]unix.Signal{
		"": 15, "SIGTERM": 15, "TERM": 15, "sigquit": 3, "9": 9, "SIGWINCH": 28, "SIGRTMIN": 34, "RTMIN+3": 37, "SIGRTMIN+30": 64, "SIGRTMAX-1": 63, "64": 64,
	} {
		if got, err := ParseStopSignal(in); err != nil || got != want {
			t.Errorf("%q: %d, %v; expected %d", in, got, err, want)
		}
	}
	for _, in := range []string{"0", "65", "-1", "SIGFOO", "SIGRTMIN+31", "SIGRTMIN-1", "SIGRTMAX+1", "SIGRTMAX-31", "SIGRTMIN3", "15 ", "SIGRTMIN+"} {
		if got, err := ParseStopSignal(in); err == nil {
			t.Errorf("%q: accepted as %d", in, got)
		}
	}
}
