package krun

import (
	"slices"
	"strings"
	"testing"
)

func TestParseHostSignals(t *testing.T) {
	got, err := ParseHostSignals([]string{"usr2", "SIGHUP", "sighup", "WINCH"})
	if err != nil || !slices.Equal(got, []string{"SIGHUP", "SIGUSR2", "SIGWINCH"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := ParseHostSignals(nil); err != nil || got != nil {
		t.Errorf("none: %q, %v", got, err)
	}
	for _, bad := range []string{"", "SIG", "KILL", "TERM", "INT", "STOP", "SEGV", "CHLD", "ABRT", "1", "RTMIN+3", "SIGSIGHUP", "HUP\n"} {
		if got, err := ParseHostSignals([]string{bad}); err == nil {
			t.Errorf("%q: accepted as %q", bad, got)
		}
	}
}

// TestSignalPolicy: the zero value lets nothing through, and a list has one
// spelling.
func TestSignalPolicy(t *testing.T) {
	var none LaunchPolicy
	usr1 := LaunchPolicy{Signals: []string{"SIGUSR1"}}
	odd := LaunchPolicy{Signals: []string{"SIGNONE"}} // never decoded
	for n := range 70 {
		if none.AllowsSignal(n) || odd.AllowsSignal(n) || usr1.AllowsSignal(n) != (n == 10) {
			t.Errorf("signal %d", n)
		}
	}
	id := goodIdentity(t)
	if b, err := id.Encode(); err != nil || strings.Contains(string(b), "signals") {
		t.Errorf("%s, %v", b, err)
	}
	for want, list := range map[bool][][]string{
		true:  {{"SIGHUP"}, {"SIGHUP", "SIGUSR1"}},
		false: {{"HUP"}, {"SIGUSR1", "SIGHUP"}, {"SIGHUP", "SIGHUP"}, {"SIGKILL"}, {""}},
	} {
		for _, signals := range list {
			id.Policy.Signals = signals
			b, err := id.Encode()
			if (err == nil) != want {
				t.Errorf("%q: %v", signals, err)
			}
			if err == nil && !strings.Contains(string(b), `"signals":["SIGHUP"`) {
				t.Errorf("%q: %s", signals, b)
			}
		}
	}
}
