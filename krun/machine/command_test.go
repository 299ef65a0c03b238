package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/measure"
	"golang.org/x/sys/unix"
)

func TestMachineCommandLine(t *testing.T) {
	m := &Machine{Cmdline: "console=ttyS0 a,b=c", Shape: measure.Shape{CPUs: 2, MemoryMiB: 512}, Hardware: Emulated{}, ThrowAway: true}
	f := os.Stderr
	net, err := guestNetOf("quiet ccrun.net=100.127.255.15/24,100.127.255.2,100.127.255.3")
	if err != nil {
		t.Fatal(err)
	}
	all := parts{kernel: f, initrd: f, disk: f, report: f, control: f, stdout: f, stderr: f, monitor: f, faults: f}
	c, err := newCommand(m, net, all)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Join(c.args, " ")
	for _, want := range []string{
		"-accel tcg,thread=multi", "-cpu max,-avx2,-cx16", "-smp 2 -m 512", "-no-reboot",
		"-kernel /proc/self/fd/3 -initrd /proc/self/fd/4 -append console=ttyS0 a,b=c",
		"socket,id=monitor,fd=5 -qmp chardev:monitor",
		"socket,id=report,fd=6 -device virtserialport,id=port-report,chardev=report,name=io.ccrun.report",
		"socket,id=control,fd=7 -device virtserialport,id=port-control,chardev=control,name=io.ccrun.control",
		"socket,id=stdout,fd=8 -device virtserialport,id=port-stdout,chardev=stdout,name=krun-stdout",
		"socket,id=stderr,fd=9 -device virtserialport,id=port-stderr,chardev=stderr,name=krun-stderr",
		"file=/proc/self/fd/10,snapshot=on", "-d cpu_reset -D /proc/self/fd/11",
		"-netdev user,id=net,net=100.127.255.0/24,dhcpstart=100.127.255.15,host=100.127.255.2,dns=100.127.255.3",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("no %q in\n%s", want, line)
		}
	}
	if len(c.files) != 9 {
		t.Errorf("%d files inherited", len(c.files))
	}
	m.ThrowAway, all.report = false, nil
	less, err := newCommand(m, guestNet{}, all)
	if err != nil {
		t.Fatal(err)
	}
	kept := strings.Join(less.args, " ")
	if strings.Contains(kept, "snapshot") || strings.Contains(kept, "hostfwd") || strings.Contains(kept, ReportPort) || !strings.Contains(kept, "user,id=net -device") {
		t.Errorf("unasked for: %s", kept)
	}
	p := c.process("/bin/true", "/tmp")
	if p.Stdin != nil || p.Stdout != os.Stderr || p.Stderr != os.Stderr {
		t.Error("the machine's console is not on the errors' stream, or reads what is typed")
	}
}

func TestSealedMemory(t *testing.T) {
	f, err := sealed("kernel", []byte("bytes"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing: %v", err)
	}
	if err := f.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncating: %v", err)
	}
	again, err := os.OpenFile("/proc/self/fd/"+itoa(f), os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	b := make([]byte, 16)
	if n, _ := again.Read(b); string(b[:n]) != "bytes" {
		t.Errorf("reopened as QEMU does: %q", b[:n])
	}
}

func itoa(f *os.File) string { return strconv.Itoa(int(f.Fd())) }

func TestErrorsNameTheNextStep(t *testing.T) {
	t.Setenv("PATH", "/nonexistent")
	_, err := FindQEMU()
	if !strings.Contains(hint.Of(err), "apt-get install "+qemuPackage) {
		t.Errorf("%v", err)
	}
}

func TestOpenRegularFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{krun.DiskFile, krun.InitrdFile} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"/etc/passwd", krun.InitrdFile} {
		path := filepath.Join(dir, krun.DiskFile)
		if err := errors.Join(os.Remove(path), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if f, err := OpenRegular(root, krun.DiskFile, os.O_RDONLY); err == nil {
			t.Errorf("opened %s through a link to %s", f.Name(), target)
		}
	}
}
