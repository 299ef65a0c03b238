package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

const (
	consolePrefix  = krun.AgentPrefix
	maxConsoleLine = 2048
	// consolePatience is how long the agent waits for a host that does not read
	// before it goes on without having been heard.
	consolePatience = 5 * time.Second
)

// console is the agent's voice. The host reads it, so it carries no secret;
// the workload's output goes to the same device untouched, so the agent is
// silent unless something failed or ccrun.debug asks for timings. A host that
// does not read it, or has stopped it, holds nothing up but the workload's own
// writing.
type console struct {
	mu       sync.Mutex
	w        io.Writer
	debug    bool
	clock    func() time.Duration // since the kernel started
	open     bool                 // the last line has not ended yet
	patience time.Duration        // of a write; zero: without an end
	unheard  bool                 // the last write was given up
	closed   atomic.Bool          // no more is written of the workload's
}

// newConsole talks to voice until it is attached elsewhere; nil: to nobody.
func newConsole(voice *os.File) *console {
	c := &console{w: io.Discard, clock: sinceKernel, patience: consolePatience}
	if voice != nil {
		c.w = voice
	}
	return c
}

// sinceKernel is CLOCK_BOOTTIME: good for durations, never for dates.
func sinceKernel() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// fail prints err and its hint as one line.
func (c *console) fail(err error) {
	text := err.Error()
	if next := hint.Of(err); next != "" {
		text += "; next: " + next
	}
	c.line(text)
}

func (c *console) timing(what string) {
	if c.debug {
		c.line(fmt.Sprintf("[%7.3f s] %s", c.clock().Seconds(), what))
	}
}

func (c *console) line(text string) { c.print(consolePrefix, text) }

// print puts text on a line of its own, also when the workload's last one has
// no end.
func (c *console) print(prefix, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	start := ""
	if c.open {
		start = "\n"
	}
	_, _ = c.write([]byte(start + prefix + oneLine(text) + "\n"))
	c.open = false
}

// Write passes the workload's output on as it is. It waits for the host as long
// as the workload runs, as a pipe would, but lets the agent in between.
func (c *console) Write(p []byte) (int, error) {
	done := 0
	for {
		n, err := c.part(p[done:])
		done += n
		if done == len(p) || !errors.Is(err, os.ErrDeadlineExceeded) || c.closed.Load() {
			return done, err
		}
	}
}

func (c *console) part(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := c.write(p)
	if n > 0 {
		c.open = p[n-1] != '\n'
	}
	return n, err
}

// write gives the host its time to read, once: after that it gets ever so little
// until it reads again.
func (c *console) write(p []byte) (int, error) {
	if f, ok := c.w.(interface{ SetWriteDeadline(time.Time) error }); ok && c.patience > 0 {
		patience := c.patience
		if c.unheard {
			patience /= 50
		}
		_ = f.SetWriteDeadline(time.Now().Add(patience)) // a file that has none waits
	}
	n, err := c.w.Write(p)
	c.unheard = errors.Is(err, os.ErrDeadlineExceeded)
	return n, err
}

// interrupt is what libkrun types on the console for a SIGINT, the only signal
// that it takes.
const interrupt = 0x03

// listenConsole takes an interrupt from the host for the engine's "stop", and
// nothing else. The host owns the console, so this never takes PID 1 down.
func listenConsole(r io.Reader, signal func(unix.Signal)) {
	defer func() { _ = recover() }()
	var b [64]byte
	for {
		n, err := r.Read(b[:])
		if bytes.IndexByte(b[:n], interrupt) >= 0 {
			signal(unix.SIGTERM)
		}
		if err != nil {
			return
		}
	}
}

// oneLine makes text, parts of which the host or a server may have chosen,
// fit for one line of a terminal.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case !unicode.IsPrint(r):
			return '?'
		}
		return r
	}, text)
	if len(text) > maxConsoleLine {
		text = strings.ToValidUTF8(text[:maxConsoleLine], "") + "..."
	}
	return text
}

// attach makes path (/dev/console) the agent's output, in raw mode: the
// workload's bytes must reach the host as they were written.
func (c *console) attach(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		// IXON: or one byte of the host's stalls whoever writes.
		t.Iflag &^= unix.IXON | unix.IXOFF | unix.ICRNL | unix.INLCR | unix.IGNCR | unix.ISTRIP
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("setting %s raw: %w", path, err)
		}
	}
	f := os.NewFile(uintptr(fd), path)
	c.mu.Lock()
	c.w = f
	c.mu.Unlock()
	return f, nil
}
