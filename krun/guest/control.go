package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

const (
	maxControlLine  = 64
	lastSignal      = 64
	controlDeadline = 5 * time.Second
	// hostAbsent is the pause after an end of file, which a virtio-serial
	// port reads as long as nobody has opened the host's side.
	hostAbsent = 100 * time.Millisecond
)

// control is the line protocol with the machine's VMM. Host to guest:
// "signal N". Guest to host: "ready" when the workload runs, and "exit N" as
// the guest's last word. The nil control, of a VMM without the port, is mute.
type control struct {
	mu   sync.Mutex
	port io.Writer
}

// openControl finds the port. QEMU's machines always have it, the simulator's among
// them; on others its absence only means that nobody listens.
func (b *boot) openControl(ctx context.Context) error {
	var limit time.Duration
	if b.identity.TEE == kbs.Sample || b.identity.VMM == krun.VMMQEMU {
		limit = deviceTimeout
	}
	f, err := openPort(ctx, controlPort, limit)
	switch {
	case errors.Is(err, errNoPort) && limit == 0:
		return nil
	case err != nil:
		return hint.With(err, "the image is for a machine of QEMU's, as the runtimes krun-sim and, with a TEE, krun make it")
	}
	b.control = &control{port: f}
	b.spawn("listening to the control port", func() { listenControl(f, b.hostSignal) })
	return nil
}

// hostSignal takes a signal from the host: for the workload, or to end a boot
// that has not come to one yet. A flood only fills the buffer.
func (b *boot) hostSignal(sig unix.Signal) {
	if admitted := b.admit(sig); admitted != 0 {
		select {
		case b.signals <- admitted:
		default:
		}
	}
	switch sig {
	case unix.SIGTERM, unix.SIGINT, unix.SIGKILL:
		b.stop(&statusError{128 + int(sig), fmt.Errorf("stopped by the host's %s before the workload started", unix.SignalName(sig))})
	}
}

// admit is the signal that the workload gets for the host's sig; 0: none. Signals
// are a way to steer a program: SIGUSR1 opens a debugger in one, SIGQUIT has
// another print its threads, SIGHUP read its settings again. So the host can
// stop and kill, as it can anyhow, and what else it may is measured. An engine's
// "stop" is SIGTERM or SIGINT, whatever the image has for it.
func (b *boot) admit(sig unix.Signal) unix.Signal {
	stop := unix.Signal(b.stopSignal.Load())
	switch {
	case sig == unix.SIGKILL:
		return sig
	case sig == unix.SIGTERM || sig == unix.SIGINT:
		return stop
	case sig == stop || b.identity != nil && b.identity.Policy.AllowsSignal(int(sig)):
		return sig
	}
	return 0
}

// listenControl hands on signals for good. The host owns the port, so what is
// not understood is skipped.
func listenControl(port io.Reader, signal func(unix.Signal)) {
	defer func() { _ = recover() }() // never take PID 1 down for a signal
	r := bufio.NewReaderSize(port, maxControlLine)
	for {
		sig, err := nextSignal(r)
		if errors.Is(err, io.EOF) {
			time.Sleep(hostAbsent)
			continue
		}
		if err != nil {
			return
		}
		signal(sig)
	}
}

// nextSignal skips to the next well-formed line.
func nextSignal(r *bufio.Reader) (unix.Signal, error) {
	skip := false
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			skip = true
			continue
		case err != nil:
			return 0, err
		}
		if sig, err := parseControl(string(line)); err == nil && !skip {
			return sig, nil
		}
		skip = false
	}
}

// parseControl parses one line from the host: "signal N\n".
func parseControl(line string) (unix.Signal, error) {
	number, ok := strings.CutPrefix(line, "signal ")
	number, terminated := strings.CutSuffix(number, "\n")
	if !ok || !terminated {
		return 0, fmt.Errorf("control line %q, expected signal N", line)
	}
	n, err := strconv.ParseUint(number, 10, 8)
	if err != nil || strconv.FormatUint(n, 10) != number || n < 1 || n > lastSignal {
		return 0, fmt.Errorf("control line %q: not a signal number", line)
	}
	return unix.Signal(n), nil
}

func (c *control) sayReady() error { return c.say("ready\n") }

func (c *control) sayExit(status int) error { return c.say(fmt.Sprintf("exit %d\n", status&0xff)) }

func (c *control) say(line string) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.port.(*os.File); ok {
		if err := f.SetWriteDeadline(time.Now().Add(controlDeadline)); err != nil {
			return err
		}
	}
	_, err := io.WriteString(c.port, line)
	return err
}
