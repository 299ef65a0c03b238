package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

// terminal is a pseudo terminal: the host's end, and the path of the guest's.
func terminal(t *testing.T) (host *os.File, path string) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("%s: no pseudo terminals here: %v", t.Name(), err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	host = os.NewFile(uintptr(fd), "host")
	t.Cleanup(func() { _ = host.Close() })
	return host, fmt.Sprintf("/dev/pts/%d", n)
}

// TestXOFFStopsNothing: a host that typed ^S, before the agent came to the
// console or after, still gets all that is written, and byte for byte.
func TestXOFFStopsNothing(t *testing.T) {
	host, path := terminal(t)
	early, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0) // the kernel's own opening
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = early.Close() }()
	const xoff = "\x13"
	if _, err := host.WriteString(xoff); err != nil {
		t.Fatal(err)
	}
	c := newConsole(nil)
	guest, err := c.attach(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = guest.Close() }()
	if _, err := host.WriteString(xoff); err != nil {
		t.Fatal(err)
	}
	want := strings.Repeat("0123456789\r\n\t\x01", 2000)
	go func() {
		_, _ = c.Write([]byte(want))
		c.line("done")
	}()
	if err := host.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	got, err := readUntil(host, "done\n")
	if err != nil || got != want+"\nccrun-init: done\n" {
		t.Errorf("%d of %d bytes: %v", len(got), len(want), err)
	}
	if err := guest.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	if typed, err := io.ReadAll(io.LimitReader(guest, 1)); err != nil || string(typed) != xoff {
		t.Errorf("typed %q, %v", typed, err)
	}
}

func readUntil(r io.Reader, end string) (string, error) {
	var all []byte
	b := make([]byte, 4096)
	for !bytes.HasSuffix(all, []byte(end)) {
		n, err := r.Read(b)
		all = append(all, b[:n]...)
		if err != nil {
			return string(all), err
		}
	}
	return string(all), nil
}

// deafHost is a boot whose console nobody reads, and that is full.
func deafHost(t *testing.T) *boot {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(r.Close(), w.Close()) })
	b, _ := testBoot()
	b.console = newConsole(w)
	b.console.patience = time.Millisecond
	for !b.console.unheard {
		b.console.line(strings.Repeat("x", 1000))
	}
	return b
}

// TestBootGoesOnUnheard: a host that does not read the console cannot hold up a
// boot, least of all one that has the disk open and fails.
func TestBootGoesOnUnheard(t *testing.T) {
	b := deafHost(t)
	b.console.debug = true // a line for each step
	got := b.live([]step{
		{"working", func(*boot, context.Context) error { return nil }},
		{"breaking", func(*boot, context.Context) error { return errors.New("no") }},
	})
	if got != statusBootFailed {
		t.Errorf("status %d", got)
	}
}

// TestOutputIsGivenUp: the disk is not kept open for a host that reads nothing
// of the workload's last output.
func TestOutputIsGivenUp(t *testing.T) {
	b := deafHost(t)
	b.identity = &krun.Identity{Policy: krun.LaunchPolicy{Logs: "host"}}
	o, err := b.openOutput()
	if err != nil {
		t.Fatal(err)
	}
	o.patience = 10 * time.Millisecond
	if _, err := o.stdout.WriteString(strings.Repeat("the last words", 1000)); err != nil {
		t.Fatal(err)
	}
	o.closeWriters()
	o.wait()
	if !b.console.closed.Load() || o.passed.Load() >= 14000 {
		t.Errorf("%d bytes passed, closed: %t", o.passed.Load(), b.console.closed.Load())
	}
}

// TestAgentIsHeardBetween: while the workload's output waits for the host, the
// agent's lines do not wait for the workload's.
func TestAgentIsHeardBetween(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := newConsole(w)
	c.patience = time.Millisecond
	big := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16) // more than a pipe holds
	written := make(chan error)
	go func() {
		_, err := c.Write(big)
		written <- err
	}()
	for range 3 {
		c.line("a line of the agent's")
	}
	got := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(r)
		got <- all
	}()
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if all := <-got; bytes.Count(all, []byte("0123456789abcde")) < 1<<16-3 {
		t.Errorf("%d bytes of %d arrived", len(all), len(big))
	}
}
