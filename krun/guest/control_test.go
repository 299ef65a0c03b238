package guest

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

func TestParseControl(t *testing.T) {
	for line, want := range map[string]unix.Signal{
		"signal 15\n": unix.SIGTERM, "signal 2\n": unix.SIGINT, "signal 1\n": unix.SIGHUP, "signal 3\n": unix.SIGQUIT,
		"signal 11\n": unix.SIGSEGV, "signal 64\n": 64, "signal 9\n": unix.SIGKILL, "signal 10\n": unix.SIGUSR1, "signal 12\n": unix.SIGUSR2, "signal 28\n": unix.SIGWINCH,
	} {
		if got, err := parseControl(line); err != nil || got != want {
			t.Errorf("%q: %v, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "\n", "signal\n", "signal \n", "signal 15", "signal 15\r\n", "signal 015\n", "signal +15\n", "signal -15\n", " signal 15\n",
		"signal 15 \n", "Signal 15\n", "signal 65\n", "signal 0\n", "signal 256\n", "signal 271\n", "exit 0\n", "signal 15\nsignal 9\n",
	} {
		if got, err := parseControl(line); err == nil {
			t.Errorf("%q: accepted as %v", line, got)
		}
	}
}

func TestNextSignalSkipsWhatItDoesNotKnow(t *testing.T) {
	long := strings.Repeat("x", 3*maxControlLine)
	// An overlong line must not end in one that counts.
	in := "noise\n" + long + "signal 9\n" + "signal 99\n" + "signal 15\n" + strings.Repeat("y", maxControlLine) + "\nsignal 2\nsignal 1"
	r := bufio.NewReaderSize(strings.NewReader(in), maxControlLine)
	for _, want := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		if got, err := nextSignal(r); err != nil || got != want {
			t.Fatalf("got %v, %v, expected %v", got, err, want)
		}
	}
	if got, err := nextSignal(r); !errors.Is(err, io.EOF) {
		t.Errorf("after the last line: %v, %v", got, err)
	}
}

func FuzzControl(f *testing.F) {
	f.Add([]byte("signal 15\n"))
	f.Add([]byte("signal 15\nsignal 9\nx"))
	f.Add(bytes.Repeat([]byte("a"), 2*maxControlLine))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(in), maxControlLine)
		n := 0
		for {
			sig, err := nextSignal(r)
			if err != nil {
				break
			}
			n++
			line := "signal " + strconv.Itoa(int(sig)) + "\n"
			if !bytes.Contains(in, []byte(line)) {
				t.Fatalf("%q: signal %d is not in it", in, sig)
			}
		}
		if n > bytes.Count(in, []byte("\n")) {
			t.Fatalf("%q: %d signals", in, n)
		}
	})
}

// hostPort reads as EOF until the host has "connected".
type hostPort struct {
	eofs int
	r    io.Reader
	err  error
}

func (p *hostPort) Read(b []byte) (int, error) {
	if p.eofs > 0 {
		p.eofs--
		return 0, io.EOF
	}
	n, err := p.r.Read(b)
	if err != nil && n == 0 {
		return 0, p.err
	}
	return n, nil
}

func TestListenSurvivesAbsentHostAndFlood(t *testing.T) {
	b, _ := testBoot()
	early := 0
	done := make(chan bool)
	go func() {
		b.stop = func(error) { early++ }
		listenControl(&hostPort{eofs: 1, r: strings.NewReader(strings.Repeat("signal 15\n", 100)), err: errors.New("unplugged")}, b.hostSignal)
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("listen blocks on a flood of signals")
	}
	if early != 100 || len(b.signals) != 0 {
		t.Errorf("%d signals seen, %d kept; expected 100 and 0", early, len(b.signals))
	}
}

func TestSay(t *testing.T) {
	var b bytes.Buffer
	c := &control{port: &b}
	if err := errors.Join(c.sayReady(), c.sayExit(0), c.sayExit(137), c.sayExit(256+7)); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), "ready\nexit 0\nexit 137\nexit 7\n"; got != want {
		t.Errorf("said %q, expected %q", got, want)
	}
	var mute *control
	if err := mute.sayExit(3); err != nil {
		t.Errorf("mute control: %v", err)
	}
}

// TestAdmittedSignals: of all that the host can send, a workload gets its own
// stop signal and SIGKILL, and what its measured policy names.
func TestAdmittedSignals(t *testing.T) {
	for name, c := range map[string]struct {
		stop    unix.Signal // 0: the workload does not run yet
		allowed []string
		want    map[unix.Signal]unix.Signal
	}{
		"before the workload": {0, nil, map[unix.Signal]unix.Signal{unix.SIGKILL: unix.SIGKILL}},
		"by default":          {unix.SIGTERM, nil, map[unix.Signal]unix.Signal{unix.SIGKILL: unix.SIGKILL, unix.SIGTERM: unix.SIGTERM, unix.SIGINT: unix.SIGTERM}},
		"other stop signal": {unix.SIGUSR1, nil, map[unix.Signal]unix.Signal{
			unix.SIGKILL: unix.SIGKILL, unix.SIGTERM: unix.SIGUSR1, unix.SIGINT: unix.SIGUSR1, unix.SIGUSR1: unix.SIGUSR1}},
		"allowed": {unix.SIGTERM, []string{"SIGHUP", "SIGWINCH"}, map[unix.Signal]unix.Signal{
			unix.SIGKILL: unix.SIGKILL, unix.SIGTERM: unix.SIGTERM, unix.SIGINT: unix.SIGTERM, unix.SIGHUP: unix.SIGHUP, unix.SIGWINCH: unix.SIGWINCH}},
	} {
		b, _ := testBoot()
		b.identity = &krun.Identity{Policy: krun.LaunchPolicy{Signals: c.allowed}}
		b.stopSignal.Store(int32(c.stop))
		for sig := unix.Signal(1); sig <= lastSignal; sig++ {
			if got := b.admit(sig); got != c.want[sig] {
				t.Errorf("%s: the workload gets %d for %d, expected %d", name, got, sig, c.want[sig])
			}
		}
	}
	b, _ := testBoot() // before there is an identity
	if got := b.admit(unix.SIGHUP); got != 0 {
		t.Errorf("without an identity: %d", got)
	}
}

// TestFloodOfRefusedSignals cannot keep what means "kill" from its place.
func TestFloodOfRefusedSignals(t *testing.T) {
	b, _ := testBoot()
	b.stop = func(error) {}
	b.stopSignal.Store(int32(unix.SIGTERM))
	for range 100 {
		b.hostSignal(unix.SIGUSR1)
	}
	b.hostSignal(unix.SIGKILL)
	if len(b.signals) != 1 || <-b.signals != unix.SIGKILL {
		t.Error("SIGKILL is lost behind signals that nobody gets")
	}
}
