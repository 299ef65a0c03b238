package machine

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// Signals are those that the VMM passes on to the workload.
func Signals() []os.Signal {
	return []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH}
}

// CatchSignals starts to catch Signals.
func CatchSignals() <-chan os.Signal {
	c := make(chan os.Signal, 16)
	signal.Notify(c, Signals()...)
	return c
}

// errNoExit reports a guest that ended without saying how. Its agent's last words
// are on the console; its kernel has none, because they could hold secrets.
var errNoExit = errors.New("the guest ended without reporting an exit status: killed by its kernel, which is mute, if its agent says nothing above")

// ErrBoot reports a machine whose agent did not come up in time.
var ErrBoot = errors.New("the guest's agent did not start")

// supervision is what is known of a guest while it runs.
type supervision struct {
	m        *Machine
	g        *guest
	ready    bool
	stops    int // SIGTERMs so far
	killed   bool
	err      error // why, if that was not the user's wish
	exit     int   // -1 until reported
	deadline <-chan time.Time
	boot     <-chan time.Time // Machine.BootLimit's; nil once the agent is up
	ending   string           // of QEMU: for a guest that did not tell its own
}

// supervise runs until the machine is gone.
func (m *Machine) supervise(g *guest, signals <-chan os.Signal) (int, error) {
	s := &supervision{m: m, g: g, exit: -1}
	if m.BootLimit > 0 {
		s.boot = time.After(m.BootLimit)
	}
	up := g.up
	defer g.report.Close()
	defer g.control.Close()
	defer g.faults.Close()
	messages, broken := make(chan message), make(chan error, 1)
	go func() {
		broken <- readControl(g.control, func(m message) { messages <- m })
		close(messages)
	}()
	for messages != nil || g.ended != nil {
		select {
		case said, ok := <-messages:
			if !ok {
				messages = nil // what the guest said before its end counts
				continue
			}
			s.heard(said)
		case err := <-broken:
			if err != nil {
				s.err = fmt.Errorf("the guest was killed: %w", err)
				s.kill()
			}
		case sig := <-signals:
			s.signal(sig.(syscall.Signal))
		case <-up:
			up, s.boot = nil, nil
		case <-s.boot:
			s.bootFailed()
		case <-s.deadline:
			m.Log.Warn("killing the guest: it did not power off in time")
			s.kill()
		case err := <-g.ended:
			g.ended = nil
			s.machineEnded(err)
		}
	}
	return s.result()
}

func (s *supervision) result() (int, error) {
	switch {
	case s.err != nil:
		return ExitFailure, s.err
	case s.exit >= 0:
		return s.exit, nil
	case s.killed:
		return ExitKilled, nil
	}
	return ExitFailure, fmt.Errorf("%w (%s)", errNoExit, s.ending)
}

// machineEnded takes what QEMU left. What the guest said before is in the
// sockets already, however late this is: nothing is waited for but their ends.
func (s *supervision) machineEnded(err error) {
	endOfInput(s.g.control)
	endOfInput(s.g.monitor)
	s.g.copied.Wait()
	s.ending = fmt.Sprintf("QEMU's last events: %s%s", cmp.Or(<-s.g.events, "none"), tripleFault(s.g.faults))
	if err != nil && !s.killed && s.exit < 0 && s.err == nil {
		s.err = fmt.Errorf("QEMU failed (%w; %s): its own message is above", err, s.ending)
	}
}

// endOfInput lets what has arrived at a socket be read, and then the end.
func endOfInput(socket *os.File) {
	if c, err := socket.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
	}
}

// maxFaultsBytes bounds what is looked at of what QEMU logged.
const maxFaultsBytes = 1 << 20

// tripleFault is for a processor that could not even tell its kernel that
// something is wrong, after which no kernel has a last word.
func tripleFault(log *os.File) string {
	b, err := io.ReadAll(io.NewSectionReader(log, 0, maxFaultsBytes))
	if err != nil || !bytes.Contains(b, []byte("Triple fault")) {
		return ""
	}
	return "; the guest's processor ended in a triple fault"
}

// bootFailed ends a machine that burns its processors for ever.
func (s *supervision) bootFailed() {
	s.boot = nil
	s.err = hint.With(fmt.Errorf("%w within %v, and the machine was ended", ErrBoot, s.m.BootLimit),
		"firmware that checks kernel hashes stops without a word at a kernel, initrd or command line other than those that it was launched with: "+
			"compare with `ccrun firmware inspect`; a slower host names its own limit in /etc/ccrun/krun.json: {\"boot_limit\":\"10m\"}")
	s.kill()
}

func (s *supervision) heard(m message) {
	s.boot = nil // who speaks is up
	if !m.ready {
		if s.exit < 0 {
			s.exit = m.exit
			s.deadline = time.After(exitTimeout)
		}
		return
	}
	if !s.ready && s.m.Started != nil {
		s.m.Started()
	}
	s.ready, s.deadline = true, nil
}

// signal passes sig on. A guest that still boots takes it as well: it keeps what
// is for the workload, and ends for what means "stop". A second SIGTERM ends
// the machine, as does a first if there is neither a workload nor an end in
// time.
func (s *supervision) signal(sig syscall.Signal) {
	if sig == syscall.SIGTERM {
		if s.stops++; s.stops > 1 {
			s.m.Log.Warn("killing the guest: second SIGTERM")
			s.kill()
			return
		}
		if !s.ready {
			s.deadline = time.After(s.m.StopTimeout)
		}
	}
	s.send(sig)
}

func (s *supervision) send(sig syscall.Signal) {
	// A guest that does not read must not stop us; a signal is a few bytes.
	_ = s.g.control.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := s.g.control.WriteString(signalLine(int(sig))); err != nil {
		s.m.Log.Warn("passing a signal on", "signal", sig, "error", err)
	}
}

func (s *supervision) kill() {
	s.killed = true
	_ = s.g.cmd.Process.Kill() // already gone is as good
}
