package podman

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/ccrun/ccrun/krun"
)

func TestStatusWatch(t *testing.T) {
	line := "[2026-11-30T06:26:18.117380Z ERROR init_or_kernel] " + krun.StatusLine(7) + "\n"
	for text, want := range map[string]int{
		"":                                  -1,
		"err\n" + line:                      7,
		line + "more\n":                     7,
		krun.StatusLine(0) + "\n" + line:    7,
		strings.TrimSuffix(line, "\n"):      -1,
		strings.Repeat("x", 100000) + line:  -1,
		strings.Repeat("x\n", 10000) + line: 7,
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			var out bytes.Buffer
			w := &statusWatch{to: &out, status: -1}
			for b := []byte(text); len(b) > 0; {
				n := min(size, len(b))
				if _, err := w.Write(b[:n]); err != nil {
					t.Fatal(err)
				}
				b = b[n:]
			}
			if w.status != want || w.seen != (want >= 0) || out.String() != text {
				t.Errorf("%.40q by %d bytes: status %d, seen %v", text, size, w.status, w.seen)
			}
		}
	}
}

func TestStatusOf(t *testing.T) {
	real, sim := &Service{RuntimePath: "/usr/libexec/ccrun/krun"}, &Service{RuntimePath: "/x/krun-sim"}
	said, silent := &statusWatch{seen: true, status: 77}, &statusWatch{}
	if got, err := real.statusOf(0, said); got != 77 || err != nil {
		t.Errorf("what the agent said: %d, %v", got, err)
	}
	if _, err := real.statusOf(0, silent); !errors.Is(err, errNoStatus) {
		t.Errorf("a silent end counts as success: %v", err)
	}
	if got, err := real.statusOf(137, said); got != 137 || err != nil {
		t.Errorf("killed: %d, %v", got, err)
	}
	if got, err := sim.statusOf(0, silent); got != 0 || err != nil {
		t.Errorf("simulated: %d, %v", got, err)
	}
	for sig, want := range map[syscall.Signal]syscall.Signal{syscall.SIGTERM: syscall.SIGINT, syscall.SIGINT: syscall.SIGINT, syscall.SIGHUP: 0} {
		if got := real.signalFor(sig); got != want {
			t.Errorf("%v under libkrun: %v, expected %v", sig, got, want)
		}
		if got := sim.signalFor(sig); got != sig {
			t.Errorf("%v simulated: %v", sig, got)
		}
	}
}

// TestWhatTheAgentSays is heard until the workload runs: after that it may be the
// workload that says so.
func TestWhatTheAgentSays(t *testing.T) {
	const libkrun = "[2026-11-30T06:26:18.117380Z ERROR init_or_kernel] "
	var said []string
	w := &statusWatch{to: &bytes.Buffer{}, says: func(s string) { said = append(said, s) }, runs: func() { said = append(said, "RUNS") }}
	_, _ = w.Write([]byte("kernel\n" + libkrun + krun.AgentPrefix + "asking\r\n" + krun.AgentPrefix + "again"))
	_, _ = w.Write([]byte(" and again\n" + libkrun + krun.StartedLine + "\n" + krun.AgentPrefix + "not heard\n" + krun.StartedLine + "\n" + krun.StatusLine(3) + "\n"))
	if got := strings.Join(said, "|"); got != "asking|again and again|RUNS" || w.status != 3 {
		t.Errorf("heard %q, status %d", got, w.status)
	}
}
