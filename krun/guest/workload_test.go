package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

func TestAwaitExec(t *testing.T) {
	say := func(text string) error {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return awaitExec(context.Background(), r)
	}
	if err := say("!"); err != nil {
		t.Errorf("executed: %v", err)
	}
	answer := func(e stageError) string {
		raw, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	find := len(stageSteps()) - 2
	for text, want := range map[string]string{
		answer(stageError{Status: 127, Step: find, Class: classNotFound}):           "finding the program: not-found: ",
		"!" + answer(stageError{Status: 127, Step: find + 1, Class: classNotFound}): "executing the program: not-found: ",
		answer(stageError{Status: 127, Step: -1, Class: "secret"}):                  "becoming the workload: internal",
		answer(stageError{Status: 127, Step: 99}):                                   "becoming the workload: internal",
	} {
		if err := say(text); status(err) != 127 || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	// A stage that dies has not become the workload.
	for _, text := range []string{"", "garbage", "!!", "{}{}", `{"Text":"x"}`} {
		if err := say(text); err == nil {
			t.Errorf("%q counts as executed", text)
		}
	}
}

func TestAwaitExecEndsWithTheBoot(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("stopped")
	time.AfterFunc(10*time.Millisecond, func() { cancel(cause) })
	if err := awaitExec(ctx, r); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

func TestOutputIsComplete(t *testing.T) {
	b, out := testBoot()
	b.identity = &krun.Identity{Policy: krun.LaunchPolicy{Logs: "host"}}
	o, err := b.openOutput()
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("0123456789\r\n"), 50000)
	go func() {
		_, _ = o.stdout.Write(big)
		_, _ = o.stderr.WriteString("err\n")
		o.closeWriters()
	}()
	o.wait()
	if out.Len() != len(big)+4 {
		t.Errorf("%d bytes of output, expected %d", out.Len(), len(big)+4)
	}
}

func TestOutputNone(t *testing.T) {
	b, out := testBoot()
	b.identity = &krun.Identity{Policy: krun.LaunchPolicy{Logs: "none"}}
	o, err := b.openOutput()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.stdout.WriteString("secret"); err != nil {
		t.Fatal(err)
	}
	o.closeWriters()
	o.wait()
	if out.Len() != 0 {
		t.Errorf("the host reads %q", out)
	}
}

func TestStageSpec(t *testing.T) {
	b, _ := testBoot()
	b.identity = &krun.Identity{WorkloadID: strings.Repeat("w", 100)}
	b.process = &krun.Process{Cmd: []string{"x"}}
	s := b.stageSpec()
	if len(s.Hostname) != maxHostname || s.ResolvConf != "" || !strings.HasSuffix(s.Hosts, "127.0.1.1 "+s.Hostname+"\n") {
		t.Errorf("%+v", s)
	}
	b.network = &network{address: netip.MustParsePrefix("10.0.2.15/24"), dns: netip.MustParseAddr("10.0.2.3")}
	if s = b.stageSpec(); s.ResolvConf != "nameserver 10.0.2.3\n" || !strings.Contains(s.Hosts, "10.0.2.15 ") {
		t.Errorf("%+v", s)
	}
}

func TestReapAndSupervise(t *testing.T) {
	for script, want := range map[string]int{
		"exit 41":    41,
		"kill -9 $$": 128 + 9,
		"trap 'exit 5' INT; echo set; while :; do sleep 0.01; done": 5,
	} {
		cmd := exec.Command("sh", "-c", script)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		b, _ := testBoot()
		if n, _ := out.Read(make([]byte, 4)); n > 0 {
			b.stopSignal.Store(int32(unix.SIGINT))
			b.stop = func(error) {}
			b.hostSignal(unix.SIGTERM) // means the image's stop signal
		}
		if got := b.supervise(cmd.Process.Pid, b.reap(cmd.Process.Pid)); got != want {
			t.Errorf("%q: status %d, expected %d", script, got, want)
		}
	}
}
