// Package machine runs a workload image in a QEMU machine: it puts QEMU into the
// container that Podman asks for, lays out its command line, and supervises it.
// The simulator and the production runtime share all of it; a Hardware is what
// they do not share.
//
// The parts, in the order in which they act:
//
//	container.go  the specification of the monitor's container, and its root
//	machine.go    a machine from its start to its exit status
//	command.go    QEMU's command line
//	hardware.go   what a machine is made of, by its TEE
//	network.go    the guest's network, as its firmware has it
//	qmp.go        ports, through QEMU's monitor
//	control.go    the guest's control port
//	supervise.go  signals, exit status, and the end
package machine

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/measure"
	"golang.org/x/sys/unix"
)

// Names of the virtio-serial ports that guest and VMM share.
const (
	ReportPort  = "io.ccrun.report"
	ControlPort = "io.ccrun.control"
)

// Exit statuses as in podman-run(1).
const (
	ExitFailure = 125 // the VMM failed, or the guest ended without a word
	ExitKilled  = 137 // the VMM had to kill the guest
)

// Machine is a machine to run.
type Machine struct {
	QEMU    string // program
	TempDir string // for writes that are not kept

	// What boots. QEMU gets exactly these bytes.
	Kernel, Initrd []byte
	Cmdline        string
	Shape          measure.Shape

	Hardware  Hardware
	Disk      *os.File // stays the caller's
	ThrowAway bool     // keep no write to Disk
	Ports     []Port
	// Report serves ReportPort until it ends; nil for a machine without one, whose
	// guest asks its own TEE.
	Report func(io.ReadWriter) error

	// Started is called when the guest says that its workload runs; nil: nobody
	// wants to know.
	Started func()

	Log *slog.Logger
	// StopTimeout is how long after SIGTERM a machine may go on that has no
	// workload running yet. A workload's time is up to whoever stops it, as
	// with `podman stop -t`.
	StopTimeout time.Duration
	// BootLimit is how long after its start a machine may go on whose agent has
	// not come up; 0: as long as it takes. Firmware that verifies hashes stops
	// without a word at a wrong one, and so does a kernel that cannot start.
	BootLimit time.Duration
}

// exitTimeout is how long the machine may take to power off after the guest
// has reported an exit status.
const exitTimeout = 10 * time.Second

// Run boots the machine and returns the exit status for the container. Signals
// are passed on to the workload.
func (m *Machine) Run(signals <-chan os.Signal) (int, error) {
	net, err := guestNetOf(m.Cmdline)
	if err != nil {
		return ExitFailure, err
	}
	g, err := m.start(net)
	if err != nil {
		return ExitFailure, err
	}
	g.events, g.up = attend(g.monitor, net, m.Ports, m.Log)
	if m.Report != nil {
		go func() {
			if err := m.Report(g.report); err != nil {
				m.Log.Error("report port closed", "error", err)
			}
		}()
	}
	return m.supervise(g, signals)
}

// guest is a running machine and our ends of its ports.
type guest struct {
	cmd              *exec.Cmd
	control, monitor *os.File
	report           *os.File        // nil without Machine.Report
	copied           *sync.WaitGroup // the workload's output
	ended            <-chan error    // QEMU's end
	events           <-chan string   // after it: what QEMU told last of the machine
	up               <-chan struct{} // closed when the agent has opened its port
	faults           *os.File        // what QEMU's processors say of their resets
}

// start boots QEMU from memory files that hold exactly the bytes of m.
func (m *Machine) start(net guestNet) (*guest, error) {
	var theirs []*os.File
	defer func() { closeAll(theirs) }()
	p := parts{disk: m.Disk}
	g := &guest{copied: new(sync.WaitGroup)}
	var err error
	for _, f := range []struct {
		name    string
		content []byte
		to      **os.File
	}{{"kernel", m.Kernel, &p.kernel}, {"initrd", m.Initrd, &p.initrd}} {
		if *f.to, err = sealed(f.name, f.content); err != nil {
			return nil, err
		}
		theirs = append(theirs, *f.to)
	}
	if g.faults, err = memoryFile("faults"); err != nil {
		return nil, err
	}
	p.faults = g.faults
	var stdout, stderr *os.File
	ends := map[string]struct{ ours, theirs **os.File }{
		ControlPort: {&g.control, &p.control}, "monitor": {&g.monitor, &p.monitor},
		krun.StdoutPort: {&stdout, &p.stdout}, krun.StderrPort: {&stderr, &p.stderr},
	}
	if m.Report != nil {
		ends[ReportPort] = struct{ ours, theirs **os.File }{&g.report, &p.report}
	}
	for name, e := range ends {
		if *e.ours, *e.theirs, err = socketPair(name); err != nil {
			return nil, err
		}
		theirs = append(theirs, *e.theirs)
	}
	c, err := newCommand(m, net, p)
	if err != nil {
		return nil, err
	}
	theirs = append(theirs, c.own...)
	g.copyOutput(stdout, os.Stdout)
	g.copyOutput(stderr, os.Stderr)
	g.cmd = c.process(m.QEMU, m.TempDir)
	g.ended, err = startTied(g.cmd)
	return g, err
}

// copyOutput gives to what the workload writes to one of its streams.
func (g *guest) copyOutput(from, to *os.File) {
	g.copied.Go(func() {
		_, _ = io.Copy(to, from)
		_ = from.Close()
	})
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// startTied starts c so that the kernel kills it when we die, however that
// happens, and returns a channel with its end. The tie is to the thread that
// forked, which therefore waits.
func startTied(c *exec.Cmd) (<-chan error, error) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			ended <- c.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting QEMU: %w", err)
	}
	return ended, nil
}

func socketPair(name string) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making port %s: %w", name, err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // the poller's, so that Close ends a Read
		return nil, nil, errors.Join(fmt.Errorf("making port %s: %w", name, err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}
