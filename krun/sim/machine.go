package sim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/measure"
)

// qemuBinary and the Debian package that has it.
const (
	qemuBinary  = "qemu-system-x86_64"
	qemuPackage = "qemu-system-x86"
)

// findQEMU looks QEMU up and returns where it really is.
func findQEMU() (string, error) {
	path, err := exec.LookPath(qemuBinary)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", hint.With(fmt.Errorf("finding QEMU: %s is not installed on this host", qemuBinary), "apt-get install %s", qemuPackage)
	}
	return path, nil
}

// machine is a QEMU command being put together. Files are inherited, never
// named by a path that could change: the first is file descriptor 3.
type machine struct {
	files []*os.File
	args  []string
}

// add gives f to QEMU and returns the number it has there.
func (m *machine) add(f *os.File) int {
	m.files = append(m.files, f)
	return 2 + len(m.files)
}

// path is how QEMU opens an inherited file.
func (m *machine) path(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(m.add(f)) }

func (m *machine) arg(a ...string) { m.args = append(m.args, a...) }

// parts is what a machine is made from besides its boot parameters.
type parts struct {
	kernel, initrd, disk *os.File
	report, control      *os.File // our ends stay here, these go to QEMU
	stdout, stderr       *os.File
	monitor, faults      *os.File
	throwAway            bool // keep no write to disk
	network              guestNet
}

// newMachine lays out QEMU's command line. TCG everywhere: KVM would make the
// simulation depend on the host, and is useless on many machines without a TEE.
func newMachine(b *boot, p parts) *machine {
	m := new(machine)
	m.hardware(b.shape)
	m.arg("-kernel", m.path(p.kernel), "-initrd", m.path(p.initrd), "-append", b.inputs.Cmdline)
	m.arg("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console")
	m.arg("-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", m.add(p.monitor)), "-mon", "chardev=monitor,mode=control")
	m.arg("-device", "virtio-serial-pci")
	m.port("report", ReportPort, p.report)
	m.port("control", ControlPort, p.control)
	m.port("stdout", krun.StdoutPort, p.stdout)
	m.port("stderr", krun.StderrPort, p.stderr)
	m.disk(p)
	m.arg("-netdev", p.network.netdev(), "-device", "virtio-net-pci,netdev=net,romfile=")
	// Without it, nothing tells a triple fault from a guest's own reset.
	m.arg("-d", "cpu_reset", "-D", m.path(p.faults))
	return m
}

// hardware is what every machine of the simulator has.
func (m *machine) hardware(s measure.Shape) {
	m.arg("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot")
	// QEMU 7.2 emulates cmpxchg16b wrongly with recent kernels: random double
	// faults. AVX2 makes guest cryptography slower under TCG, not faster.
	m.arg("-M", "q35", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-avx2,-cx16")
	m.arg("-smp", strconv.FormatUint(uint64(s.CPUs), 10), "-m", strconv.FormatUint(uint64(s.MemoryMiB), 10))
}

func (m *machine) port(id, name string, socket *os.File) {
	m.arg("-chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, m.add(socket)))
	m.arg("-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", id, name))
}

func (m *machine) disk(p parts) {
	drive := "if=none,id=disk,format=raw,discard=unmap,file=" + m.path(p.disk)
	if p.throwAway {
		drive += ",snapshot=on"
	}
	m.arg("-drive", drive, "-device", "virtio-blk-pci,drive=disk")
}

// command is m as a process to start. The guest's console goes where the
// container's errors go, and nothing comes from anywhere: what is typed or piped
// into a container would be in its log.
func (m *machine) command(qemu, tmp string) *exec.Cmd {
	c := exec.Command(qemu, m.args...)
	c.ExtraFiles = m.files
	c.Stdout, c.Stderr = os.Stderr, os.Stderr
	c.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + tmp}
	return c
}
