package guest

import (
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
)

func TestOneChannelKeepsOrder(t *testing.T) {
	b, out := testBoot()
	b.identity = &krun.Identity{Policy: krun.LaunchPolicy{Logs: "host"}}
	o, err := b.openOutput()
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for range 1000 {
		_, _ = o.stdout.WriteString("out\n")
		_, _ = o.stderr.WriteString("err\n")
		want.WriteString("out\nerr\n")
	}
	o.closeWriters()
	o.wait()
	if out.String() != want.String() {
		t.Error("stdout and stderr changed places on the one console")
	}
}

func TestConsoleInterrupt(t *testing.T) {
	for text, want := range map[string]int{"": 0, "typed\x13\x11": 0, "a\x03b": 1, "\x03": 1} {
		got := 0
		listenConsole(io.MultiReader(strings.NewReader(text), failing{}), func(sig unix.Signal) {
			if got++; sig != unix.SIGTERM {
				t.Errorf("%q: signal %v, expected SIGTERM", text, sig)
			}
		})
		if got != want {
			t.Errorf("%q: %d signals, expected %d", text, got, want)
		}
	}
	listenConsole(failing{}, nil)
	listenConsole(strings.NewReader("\x03"), func(unix.Signal) { panic("must not reach PID 1") })
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("hung up") }

func TestDenied(t *testing.T) {
	for code, want := range map[string]bool{
		kbs.CodeAttestationDenied: true, kbs.CodeForbidden: true,
		kbs.CodeUnavailable: false, kbs.CodeRateLimited: false, kbs.CodeInternal: false, kbs.CodeNotFound: false, "": false,
	} {
		err := error(&kbs.ProblemError{Problem: kbs.Problem{Code: code}})
		if denied(errors.Join(io.EOF, err)) != want {
			t.Errorf("%q: denied is %v, expected %v", code, !want, want)
		}
	}
	if denied(nil) || denied(io.EOF) {
		t.Error("an error of the network counts as a refusal")
	}
}
