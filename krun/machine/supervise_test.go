package machine

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/krun/measure"
)

// fakeGuest stands for QEMU: a process that ends only when it is told to,
// and the guest's end of the control port.
type fakeGuest struct {
	*guest
	control *os.File // the guest's end
	signals chan os.Signal
	result  chan outcome
	in      *bufio.Reader
	stop    io.Closer // ends the process as a power-off would
}

type outcome struct {
	code int
	err  error
}

func startFake(t *testing.T, stopTimeout time.Duration) *fakeGuest {
	t.Helper()
	return startFakeOf(t, &Machine{Log: slog.New(slog.DiscardHandler), StopTimeout: stopTimeout}, make(chan struct{}))
}

// startFakeOf starts a guest whose agent is up when opened is closed.
func startFakeOf(t *testing.T, m *Machine, opened chan struct{}) *fakeGuest {
	t.Helper()
	f := &fakeGuest{guest: &guest{copied: new(sync.WaitGroup), up: opened}, signals: make(chan os.Signal), result: make(chan outcome, 1)}
	var err error
	var discard *os.File
	if f.guest.report, discard, err = socketPair(ReportPort); err != nil {
		t.Fatal(err)
	}
	discard.Close()
	var theirs *os.File
	if f.guest.control, theirs, err = socketPair(ControlPort); err != nil {
		t.Fatal(err)
	}
	f.control, f.in = theirs, bufio.NewReader(theirs)
	events := make(chan string, 1)
	events <- "SHUTDOWN guest-reset"
	f.events = events
	if f.monitor, theirs, err = socketPair("monitor"); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	if f.faults, err = memoryFile("faults"); err != nil {
		t.Fatal(err)
	}
	f.cmd = exec.Command("cat") // ends with its input
	if f.stop, err = f.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if f.ended, err = startTied(f.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		code, err := m.supervise(f.guest, f.signals)
		f.result <- outcome{code, err}
	}()
	t.Cleanup(func() { f.powerOff() })
	return f
}

func (f *fakeGuest) say(t *testing.T, line string) {
	t.Helper()
	if _, err := f.control.WriteString(line); err != nil {
		t.Fatal(err)
	}
}

func (f *fakeGuest) hear(t *testing.T) string {
	t.Helper()
	line, err := f.in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return line
}

func (f *fakeGuest) powerOff() { f.control.Close(); f.stop.Close() }

func (f *fakeGuest) want(t *testing.T, code int, target error) {
	t.Helper()
	select {
	case got := <-f.result:
		if got.code != code || !errors.Is(got.err, target) {
			t.Fatalf("status %d, error %v; expected %d, %v", got.code, got.err, code, target)
		}
	case <-time.After(time.Minute):
		t.Fatal("the VMM did not end")
	}
}

func TestExitStatusIsTheWorkloads(t *testing.T) {
	f := startFake(t, time.Minute)
	f.say(t, "ready\nexit 41\n")
	f.powerOff()
	f.want(t, 41, nil)
}

func TestFirstExitStatusCounts(t *testing.T) {
	f := startFake(t, time.Minute)
	f.say(t, "exit 3\nexit 0\n")
	f.powerOff()
	f.want(t, 3, nil)
}

func TestGuestThatDiesSilently(t *testing.T) {
	f := startFake(t, time.Minute)
	f.say(t, "ready\n")
	f.powerOff()
	f.want(t, ExitFailure, errNoExit)
}

// TestNoGuestEndsWithoutAWord: of one that cannot speak any more, QEMU knows.
func TestNoGuestEndsWithoutAWord(t *testing.T) {
	f := startFake(t, time.Minute)
	if _, err := f.faults.WriteString("CPU Reset (CPU 0)\nTriple fault\n"); err != nil {
		t.Fatal(err)
	}
	f.say(t, "ready\n")
	f.powerOff()
	got := <-f.result
	for _, want := range []string{errNoExit.Error(), "SHUTDOWN guest-reset", "triple fault"} {
		if got.code != ExitFailure || got.err == nil || !strings.Contains(got.err.Error(), want) {
			t.Errorf("status %d, error %v; expected %q", got.code, got.err, want)
		}
	}
}

// TestStatusIsReadLate: a VMM that gets no processor time for a while after
// QEMU's end finds the guest's last word all the same.
func TestStatusIsReadLate(t *testing.T) {
	ours, theirs, err := socketPair(ControlPort)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	if _, err := theirs.WriteString(strings.Repeat("ready\n", maxControlLine) + "exit 41\n"); err != nil {
		t.Fatal(err)
	}
	endOfInput(ours)
	last := message{}
	if err := readControl(ours, func(m message) { last = m }); err != nil || last.exit != 41 {
		t.Errorf("read %+v at the end (%v), expected status 41", last, err)
	}
}

func TestGuestThatTalksNonsenseIsKilled(t *testing.T) {
	f := startFake(t, time.Minute)
	f.say(t, "ready\nexit 0 please\n")
	f.want(t, ExitFailure, errControl)
}

func TestQEMUThatFails(t *testing.T) {
	f := startFake(t, time.Minute)
	if err := f.cmd.Process.Kill(); err != nil { // by somebody else
		t.Fatal(err)
	}
	f.control.Close()
	var exit *exec.ExitError
	select {
	case got := <-f.result:
		if got.code != ExitFailure || !errors.As(got.err, &exit) {
			t.Fatalf("status %d, error %v", got.code, got.err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the VMM did not end")
	}
}

// TestQEMUKilledInEachStep: whenever the host ends QEMU, the container ends as well,
// with a status that is no success, unless the workload had told its own.
func TestQEMUKilledInEachStep(t *testing.T) {
	for name, c := range map[string]struct {
		up   bool
		said string
		code int
	}{
		"in the firmware":     {false, "", ExitFailure},
		"while it waits":      {true, "", ExitFailure},
		"in the workload":     {true, "ready\n", ExitFailure},
		"in the last word":    {true, "ready\nexit 4", ExitFailure},
		"after the last word": {true, "ready\nexit 41\n", 41},
	} {
		opened := make(chan struct{})
		if c.up {
			close(opened)
		}
		f := startFakeOf(t, &Machine{Log: slog.New(slog.DiscardHandler), StopTimeout: time.Minute, BootLimit: time.Hour}, opened)
		f.say(t, c.said)
		if err := f.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		f.control.Close()
		select {
		case got := <-f.result:
			if got.code != c.code || (got.err == nil) != (c.code == 41) {
				t.Errorf("%s: status %d, %v", name, got.code, got.err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: the monitor did not end", name)
		}
	}
}

// TestQEMUThatIsNone: a program in QEMU's place that ends at once, or says what is
// not QEMU's monitor, is a failure with its status, and no workload's.
func TestQEMUThatIsNone(t *testing.T) {
	for _, script := range []string{"exit 0", "exit 1", "kill -9 $$", "for f in 5 6 7 8 9; do echo nonsense >&$f; done 2>/dev/null; exit 3", "exec /nonexistent"} {
		disk, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		m := Machine{QEMU: program(t, script), TempDir: t.TempDir(), Kernel: []byte("k"), Initrd: []byte("i"), Cmdline: "quiet", Hardware: Emulated{},
			Shape: measure.Shape{CPUs: 1, MemoryMiB: 512}, Disk: disk, Log: slog.New(slog.DiscardHandler), StopTimeout: time.Minute, BootLimit: time.Minute}
		if code, err := m.Run(nil); code != ExitFailure || err == nil || errors.Is(err, ErrBoot) {
			t.Errorf("%s: status %d, %v", script, code, err)
		}
		disk.Close()
	}
}

func TestSignalsReachTheWorkload(t *testing.T) {
	f := startFake(t, time.Minute)
	f.say(t, "ready\n")
	f.signals <- syscall.SIGHUP
	if got := f.hear(t); got != "signal 1\n" {
		t.Fatalf("got %q", got)
	}
	f.signals <- syscall.SIGTERM
	if got := f.hear(t); got != "signal 15\n" {
		t.Fatalf("got %q", got)
	}
	f.say(t, "exit 0\n")
	f.powerOff()
	f.want(t, 0, nil)
}

// TestSignalsReachAGuestThatBoots: it waits for its key, perhaps, and must obey
// a stop at once; what is for the workload it keeps itself.
func TestSignalsReachAGuestThatBoots(t *testing.T) {
	f := startFake(t, time.Minute)
	f.signals <- syscall.SIGWINCH
	f.signals <- syscall.SIGTERM
	if a, b := f.hear(t), f.hear(t); a != "signal 28\n" || b != "signal 15\n" {
		t.Fatalf("got %q, %q", a, b)
	}
	f.say(t, "exit 143\n")
	f.powerOff()
	f.want(t, 143, nil)
}

func TestStopBeforeTheWorkloadRuns(t *testing.T) {
	f := startFake(t, 20*time.Millisecond)
	f.signals <- syscall.SIGTERM
	f.want(t, ExitKilled, nil)
}

func TestStopTimeIsTheStoppers(t *testing.T) {
	f := startFake(t, 20*time.Millisecond)
	f.say(t, "ready\n")
	f.signals <- syscall.SIGTERM
	f.hear(t)
	select {
	case got := <-f.result:
		t.Fatalf("the workload was given no time to stop: %+v", got)
	case <-time.After(100 * time.Millisecond):
	}
	f.say(t, "exit 0\n")
	f.powerOff()
	f.want(t, 0, nil)
}

func TestSecondStopKills(t *testing.T) {
	f := startFake(t, time.Minute)
	f.say(t, "ready\n")
	f.signals <- syscall.SIGTERM
	f.hear(t)
	f.signals <- syscall.SIGTERM
	f.want(t, ExitKilled, nil)
}

// TestBootLimit: firmware that stops at a wrong hash burns a processor for ever,
// and nothing is heard of it. An agent that is up has all the time it likes: it
// may wait for its key for days.
func TestBootLimit(t *testing.T) {
	limited := func(limit time.Duration, opened chan struct{}) *fakeGuest {
		return startFakeOf(t, &Machine{Log: slog.New(slog.DiscardHandler), StopTimeout: time.Minute, BootLimit: limit}, opened)
	}
	limited(time.Millisecond, make(chan struct{})).want(t, ExitFailure, ErrBoot)

	spoke := limited(time.Hour, make(chan struct{}))
	spoke.say(t, "exit 7\n")
	spoke.powerOff()
	spoke.want(t, 7, nil)

	opened := make(chan struct{})
	close(opened)
	up := limited(200*time.Millisecond, opened)
	select {
	case got := <-up.result:
		t.Fatalf("ended with %d, %v although its agent is up", got.code, got.err)
	case <-time.After(500 * time.Millisecond):
	}
	up.say(t, "ready\nexit 0\n")
	up.powerOff()
	up.want(t, 0, nil)
}

// TestAgentIsUp: QEMU tells of the agent's port, and of others, which say nothing.
func TestAgentIsUp(t *testing.T) {
	for text, want := range map[string]bool{
		`{"event":"VSERPORT_CHANGE","data":{"id":"port-control","open":true}}`:  true,
		`{"event":"VSERPORT_CHANGE","data":{"id":"port-control","open":false}}`: false,
		`{"event":"VSERPORT_CHANGE","data":{"id":"port-stdout","open":true}}`:   false,
		`{"event":"VSERPORT_CHANGE","data":{"open":true}}`:                      false,
		`{"event":"RESUME","data":{"id":"port-control","open":true}}`:           false,
	} {
		up := false
		q := &qmp{in: json.NewDecoder(strings.NewReader(text)), opened: func() { up = true }}
		if last := q.watch(); up != want || strings.Contains(last, "VSERPORT") {
			t.Errorf("%s: up %v, last events %q", text, up, last)
		}
	}
}

func TestWindowChangeIsCaught(t *testing.T) {
	if !slices.Contains(Signals(), os.Signal(syscall.SIGWINCH)) {
		t.Error("SIGWINCH is dropped")
	}
}
