package machine

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"github.com/ccrun/ccrun/krun"
)

// command is a QEMU command line being put together. Files are inherited, never
// named by a path that could change: the first is file descriptor 3.
type command struct {
	files []*os.File
	args  []string
	own   []*os.File // those of files that nobody else closes
}

// add gives f to QEMU and returns the number it has there.
func (c *command) add(f *os.File) int {
	c.files = append(c.files, f)
	return 2 + len(c.files)
}

// path is how QEMU opens an inherited file.
func (c *command) path(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(c.add(f)) }

func (c *command) arg(a ...string) { c.args = append(c.args, a...) }

// parts is what a machine is made from besides its boot parameters.
type parts struct {
	kernel, initrd, disk *os.File
	report, control      *os.File // our ends stay here, these go to QEMU
	stdout, stderr       *os.File
	monitor, faults      *os.File
}

// newCommand lays out QEMU's command line.
func newCommand(m *Machine, network guestNet, p parts) (*command, error) {
	c := new(command)
	c.frame()
	if err := m.Hardware.layOut(c, m.Shape); err != nil {
		closeAll(c.own)
		return nil, err
	}
	c.arg("-kernel", c.path(p.kernel), "-initrd", c.path(p.initrd), "-append", m.Cmdline)
	c.arg("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
	c.arg("-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", c.add(p.monitor)), "-qmp", "chardev:monitor")
	c.arg("-device", "virtio-serial-pci")
	if p.report != nil {
		c.port("report", ReportPort, p.report)
	}
	c.port(controlID, ControlPort, p.control)
	c.port("stdout", krun.StdoutPort, p.stdout)
	c.port("stderr", krun.StderrPort, p.stderr)
	c.disk(p.disk, m.ThrowAway)
	c.arg("-netdev", network.netdev(), "-device", "virtio-net-pci,netdev=net,romfile=")
	// Without it, nothing tells a triple fault from a guest's own reset.
	c.arg("-d", "cpu_reset", "-D", c.path(p.faults))
	return c, nil
}

// frame leaves nothing to QEMU's defaults.
func (c *command) frame() {
	c.arg("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot")
}

func (c *command) port(id, name string, socket *os.File) {
	c.arg("-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, c.add(socket)))
	// With an id, QEMU tells when the guest opens it.
	c.arg("-device", fmt.Sprintf("virtserialport,id=%s%s,chardev=%s,name=%s", portPrefix, id, id, name))
}

func (c *command) disk(disk *os.File, throwAway bool) {
	drive := "if=none,id=disk,format=raw,discard=unmap,file=" + c.path(disk)
	if throwAway {
		drive += ",snapshot=on"
	}
	// A host whose own disk is full has the guest see an error, as libkrun has it:
	// by default QEMU stops the machine, and waits for somebody to go on with it.
	c.arg("-drive", drive, "-device", "virtio-blk-pci,drive=disk,werror=report,rerror=report")
}

// process is c to be started. The guest's console goes where the container's
// errors go, and nothing comes from anywhere: what is typed or piped into a
// container would be in its log.
func (c *command) process(qemu, tmp string) *exec.Cmd {
	p := exec.Command(qemu, c.args...)
	p.ExtraFiles = c.files
	p.Stdout, p.Stderr = os.Stderr, os.Stderr
	p.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + tmp}
	return p
}
