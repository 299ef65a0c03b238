package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// bootSteps is the whole boot up to the workload, PID 1's and the keeper's.
func bootSteps() []step {
	return slices.Concat(earlySteps(), withSecrets(withVolumes(diskSteps())), withService(lateSteps()))
}

func testBoot() (*boot, *bytes.Buffer) {
	var out bytes.Buffer
	c := &console{w: &out, clock: func() time.Duration { return 1500 * time.Millisecond }}
	return &boot{console: c, signals: make(chan unix.Signal, 2)}, &out
}

func TestBootStepsAreInOrder(t *testing.T) {
	// What each must come after, and why it matters.
	after := map[string][]string{
		"loading kernel modules":            {"mounting kernel file systems"},
		"setting up the network":            {"reading the kernel command line", "loading kernel modules"},
		"finding the disk":                  {"reading the identity", "loading kernel modules"},
		"obtaining the disk key":            {"finding the disk", "setting up the network", "looking for the processor's random numbers"}, // the footer's digest is attested
		"loading the image's modules":       {"reading the identity", "loading kernel modules"},
		"unlocking the disk":                {"obtaining the disk key", "loading the image's modules"},
		"mounting the disk":                 {"unlocking the disk"},
		"getting the volumes' keys":         {"unlocking the disk"},
		"getting the right to renew":        {"obtaining the disk key"},
		"confirming the release":            {"unlocking the disk", "getting the right to renew", "getting the volumes' keys"}, // after which the VM gets none
		"mounting the volumes":              {"mounting the disk", "confirming the release"},
		"cutting the network off":           {"confirming the release", "mounting the volumes"}, // which need it
		"reading the process configuration": {"mounting the disk"},
		"starting the workload's service":   {"confirming the release", "mounting the volumes", "cutting the network off"},
		"locking down the kernel":           {"mounting the disk", "confirming the release", "starting the workload's service"}, // modules and report device are still needed before
	}
	seen := map[string]bool{}
	steps := bootSteps()
	for _, s := range steps {
		if s.run == nil || s.String() == "" || seen[s.String()] {
			t.Errorf("step %q is empty or double", s)
		}
		for _, before := range after[s.String()] {
			if !seen[before] {
				t.Errorf("%q comes before %q", s, before)
			}
		}
		delete(after, s.String())
		seen[s.String()] = true
	}
	if len(after) != 0 {
		t.Errorf("steps missing: %v", after)
	}
	if last := steps[len(steps)-1].String(); last != "locking down the kernel" {
		t.Errorf("last step is %q: the workload would start in an open kernel", last)
	}
}

func TestFailedStepEndsTheBoot(t *testing.T) {
	for _, c := range []struct {
		name   string
		run    func(*boot, context.Context) error
		status int
		line   string
	}{
		{"error", func(*boot, context.Context) error {
			return hint.With(errors.New("got 1, expected 2\nline two"), "do this")
		}, 125, "ccrun-init: breaking: got 1, expected 2 line two; next: do this\n"},
		{"status", func(*boot, context.Context) error {
			return &statusError{127, errors.New("no file")}
		}, 127, "ccrun-init: breaking: no file\n"},
		{"panic", func(*boot, context.Context) error { panic("oops") }, 125, "ccrun-init: panic while breaking; next: report it, with the image's version of ccrun\n"},
		{"index", func(b *boot, _ context.Context) error {
			return fmt.Errorf("%v", b.mounts[3])
		}, 125, "ccrun-init: panic while breaking; next: report it, with the image's version of ccrun\n"},
		{"stopped", func(b *boot, ctx context.Context) error {
			b.hostSignal(unix.SIGUSR1) // no reason to stop
			if ctx.Err() != nil {
				return errors.New("stopped by SIGUSR1")
			}
			b.hostSignal(unix.SIGTERM)
			return ctx.Err()
		}, 143, "ccrun-init: breaking: stopped by the host's SIGTERM before the workload started\n"},
	} {
		b, out := testBoot()
		later := false
		got := b.live([]step{
			{"working", func(*boot, context.Context) error { return nil }},
			{"breaking", c.run},
			{"never", func(*boot, context.Context) error { later = true; return nil }},
		})
		if got != c.status || later || !strings.Contains(out.String(), c.line) || strings.Count(out.String(), "\n") != 1 {
			t.Errorf("%s: status %d, went on: %v, said %q", c.name, got, later, out)
		}
	}
}

func TestStopBetweenSteps(t *testing.T) {
	b, out := testBoot()
	got := b.live([]step{
		{"first", func(b *boot, _ context.Context) error { b.hostSignal(unix.SIGKILL); return nil }},
		{"second", func(*boot, context.Context) error { t.Error("went on after SIGKILL"); return nil }},
	})
	if got != 137 || !strings.Contains(out.String(), "SIGKILL") {
		t.Errorf("status %d, said %q", got, out)
	}
}

func TestConsole(t *testing.T) {
	b, out := testBoot()
	b.console.timing("silent by default")
	b.console.debug = true
	b.console.timing("step")
	_, _ = b.console.Write([]byte("raw\x1b[0m \xff"))
	b.console.fail(errors.New("host says \x1b]0;x\a" + strings.Repeat("y", 2*maxConsoleLine)))
	got := out.String()
	want := "ccrun-init: [  1.500 s] step\nraw\x1b[0m \xff\nccrun-init: host says ?]0;x?yyy"
	if !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "y...\n") || len(got) > maxConsoleLine+200 {
		t.Errorf("got %q", got)
	}
}

func FuzzOneLine(f *testing.F) {
	f.Add("a\nb\x1b[2Jc\u202e")
	f.Fuzz(func(t *testing.T, in string) {
		out := oneLine(in)
		if strings.ContainsAny(out, "\n\r\x1b\x00\u202e") || len(out) > maxConsoleLine+3 {
			t.Fatalf("%q becomes %q", in, out)
		}
	})
}

func TestWaitFor(t *testing.T) {
	n := 0
	if err := waitFor(context.Background(), time.Second, func() error {
		if n++; n < 3 {
			return errNoPort
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("%d tries, %v", n, err)
	}
	if err := waitFor(context.Background(), 0, func() error { return errNoPort }); !errors.Is(err, errNoPort) {
		t.Errorf("got %v", err)
	}
	cause := errors.New("stop")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	if err := waitFor(ctx, time.Minute, func() error { return errNoPort }); !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}
