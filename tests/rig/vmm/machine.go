package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The ports of the machine. report is the simulated TEE's, the others are
// libkrun's.
const (
	stdinPort  = "krun-stdin"
	stdoutPort = "krun-stdout"
	stderrPort = "krun-stderr"
	reportPort = "io.ccrun.report"
)

// machine is a guest and our ends of its ports.
type machine struct {
	cmd    *exec.Cmd
	hvc0   *os.File
	ports  map[string]*os.File
	report func(*os.File)
}

// cmdline is libkrun's for a TEE as far as QEMU's machine has the devices; the
// kernel of a real one has it built in. Disks before the machine's own move its
// root.
func cmdline(s settings) string {
	before := 0
	for _, arg := range s.Before {
		before += strings.Count(arg, "virtio-blk-device")
	}
	return fmt.Sprintf("reboot=k panic=-1 no_timer_check console=hvc0 quiet tsi_hijack root=/dev/vd%c rw rootfstype=ext4 init=/init %s", 'b'+before, s.Append)
}

// newMachine lays the guest out: libkrun's order of devices on virtio-mmio.
func newMachine(p *parts, s settings) (*machine, error) {
	kernel, err := pvhELF(p.kernel, p.load)
	if err != nil {
		return nil, err
	}
	m := &machine{ports: map[string]*os.File{}}
	var files []*os.File
	inherit := func(f *os.File) string {
		files = append(files, f)
		return strconv.Itoa(2 + len(files))
	}
	elf, err := memoryFile("kernel", kernel)
	if err != nil {
		return nil, err
	}
	root, err := memoryFile("root", p.root)
	if err != nil {
		return nil, err
	}
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-M", "microvm,acpi=off,rtc=on,isa-serial=off,auto-kernel-cmdline=on",
		"-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-avx2,-cx16" + s.CPU,
		"-smp", strconv.Itoa(int(p.config.CPUs)), "-m", strconv.FormatUint(uint64(p.config.MemoryMiB), 10),
		"-kernel", "/proc/self/fd/" + inherit(elf), "-append", cmdline(s),
		"-device", "virtio-serial-device,max_ports=8"}
	port := func(device, name string) error {
		ours, theirs, err := socketPair(name)
		if err != nil {
			return err
		}
		args = append(args, "-chardev", "socket,id="+name+",fd="+inherit(theirs), "-device", device+",chardev="+name)
		if name == "hvc0" {
			m.hvc0 = ours
		} else {
			args[len(args)-1] += ",name=" + name
			m.ports[name] = ours
		}
		return nil
	}
	if err := port("virtconsole", "hvc0"); err != nil {
		return nil, err
	}
	for _, name := range portsOf(s) {
		if err := port("virtserialport", name); err != nil {
			return nil, err
		}
	}
	args = append(args, s.Before...)
	for i, f := range []*os.File{p.disk, root} {
		id := fmt.Sprintf("disk%d", i)
		file := "file.filename=/proc/self/fd/" + inherit(f)
		if i == 0 && s.Faults != "" {
			file = "file.driver=blkdebug,file.image.driver=file,file.image.filename=/proc/self/fd/" + strconv.Itoa(2+len(files)) + s.Faults
		}
		args = append(args, "-drive", "if=none,driver=raw,id="+id+","+file, "-device", "virtio-blk-device,drive="+id)
	}
	args = append(args, "-netdev", "user,id=net"+s.Slirp, "-device", "virtio-net-device,netdev=net")
	args = append(args, s.More...)
	m.cmd = exec.Command("/usr/bin/qemu-system-x86_64", args...)
	m.cmd.ExtraFiles = files
	m.cmd.Stderr = os.Stderr
	m.cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=/dev/shm"}
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if s.Chip != "" {
		m.report, err = p.signer(s.Chip)
	}
	return m, err
}

// portsOf is libkrun's: a port for each stream that is no terminal.
func portsOf(s settings) []string {
	names := []string{reportPort}
	for i, name := range []string{stdinPort, stdoutPort, stderrPort} {
		if !isTerminal(i) {
			names = append(names, name)
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(s.Mute, n) })
}

func isTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

func memoryFile(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(b)
	return f, err
}

func socketPair(name string) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making port %s: %w", name, err)
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
}
