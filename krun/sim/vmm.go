package sim

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

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/krun"
	"golang.org/x/sys/unix"
)

// VMM plays the three parts that a TEE host has besides the guest: firmware
// loading, secure processor, and virtual machine monitor.
type VMM struct {
	Config *Config
	Log    *slog.Logger
	// StopTimeout is how long after SIGTERM a machine may go on that has no
	// workload running yet. A workload's time is up to whoever stops it, as
	// with `podman stop -t`.
	StopTimeout time.Duration
}

// exitTimeout is how long the machine may take to power off after the guest
// has reported an exit status.
const exitTimeout = 10 * time.Second

// Run boots the image and returns the exit status for the container. Signals
// are passed on to the workload.
func (v *VMM) Run(signals <-chan os.Signal) (int, error) {
	for _, w := range v.Config.Warnings {
		v.Log.Warn(w)
	}
	root, err := os.OpenRoot(v.Config.ImageDir)
	if err != nil {
		return ExitFailure, fmt.Errorf("opening image: %w", err)
	}
	defer root.Close()
	b, err := loadBoot(root, v.Config.FirmwareDir)
	if err != nil {
		return ExitFailure, err
	}
	sign, err := v.signer(b)
	if err != nil {
		return ExitFailure, err
	}
	net, err := guestNetOf(b.inputs.Cmdline)
	if err != nil {
		return ExitFailure, err
	}
	g, err := v.start(root, b, net)
	if err != nil {
		return ExitFailure, err
	}
	g.events = attend(g.monitor, net, v.Config.Ports, v.Log)
	go func() {
		if err := serveReports(g.report, sign); err != nil {
			v.Log.Error("report port closed", "error", err)
		}
	}()
	return v.supervise(g, signals)
}

// signer measures the boot, once, and opens the chip that signs for it.
func (v *VMM) signer(b *boot) (Signer, error) {
	digest, err := b.digest()
	if err != nil {
		return nil, err
	}
	launch, err := sample.NewLaunch(digest)
	if err != nil {
		return nil, err
	}
	chip, err := sample.OpenChip(v.Config.ChipDir)
	if err != nil {
		return nil, err
	}
	v.Log.Info("booting", "launch_digest", digest, "cpus", b.shape.CPUs, "memory_mib", b.shape.MemoryMiB)
	return func(d kbs.ReportData) (kbs.Evidence, error) { return chip.Sign(d, launch) }, nil
}

// guest is a running machine and our ends of its ports.
type guest struct {
	cmd                      *exec.Cmd
	report, control, monitor *os.File
	copied                   *sync.WaitGroup // the workload's output
	ended                    <-chan error    // QEMU's end
	events                   <-chan string   // after it: what QEMU told last of the machine
	faults                   *os.File        // what QEMU's processors say of their resets
}

// start boots QEMU from memory files that hold exactly the bytes of b.
func (v *VMM) start(root *os.Root, b *boot, net guestNet) (*guest, error) {
	var theirs []*os.File
	defer func() { closeAll(theirs) }()
	own := func(f *os.File, err error) (*os.File, error) {
		if err == nil {
			theirs = append(theirs, f)
		}
		return f, err
	}
	flag := os.O_RDWR
	if v.Config.ReadOnly {
		flag = os.O_RDONLY
	}
	p := parts{throwAway: v.Config.ReadOnly, network: net}
	g := &guest{copied: new(sync.WaitGroup)}
	var err error
	if p.kernel, err = own(sealed("kernel", b.inputs.Kernel)); err != nil {
		return nil, err
	}
	if p.initrd, err = own(sealed("initrd", b.inputs.Initrd)); err != nil {
		return nil, err
	}
	if g.faults, err = memoryFile("faults"); err != nil {
		return nil, err
	}
	p.faults = g.faults
	if p.disk, err = own(openRegular(root, krun.DiskFile, flag)); err != nil {
		return nil, err
	}
	var stdout, stderr *os.File
	for name, ends := range map[string]struct{ ours, theirs **os.File }{
		ReportPort: {&g.report, &p.report}, ControlPort: {&g.control, &p.control}, "monitor": {&g.monitor, &p.monitor},
		krun.StdoutPort: {&stdout, &p.stdout}, krun.StderrPort: {&stderr, &p.stderr},
	} {
		if *ends.ours, *ends.theirs, err = socketPair(name); err != nil {
			return nil, err
		}
		theirs = append(theirs, *ends.theirs)
	}
	g.copyOutput(stdout, os.Stdout)
	g.copyOutput(stderr, os.Stderr)
	g.cmd = newMachine(b, p).command(v.Config.QEMU, v.Config.TempDir)
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
