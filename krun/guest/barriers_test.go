package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun/process"
)

// barrierVariable tells the test binary to be a workload behind one barrier.
const barrierVariable = "CCRUN_TEST_BARRIER"

// behind runs TestBehindBarrier in a process of its own, root in name if the
// tests are not, and returns what it printed.
func behind(t *testing.T, barrier string, attributes *syscall.SysProcAttr) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, "-test.run=^TestBehindBarrier$", "-test.v")
	c.Env = append(os.Environ(), barrierVariable+"="+barrier)
	c.SysProcAttr = attributes
	if os.Getuid() != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := c.CombinedOutput()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		t.Skipf("this system makes no namespaces: %v", err)
	}
	if err != nil {
		t.Fatalf("behind %s: %v\n%s", barrier, err, out)
	}
	return string(out)
}

// TestBehindBarrier is what runs in that process.
func TestBehindBarrier(t *testing.T) {
	runtime.LockOSThread() // whose thread dies with the test
	switch os.Getenv(barrierVariable) {
	case "":
		t.Skip("a part of other tests")
	case "root":
		dropAndTell(t, process.Credentials{})
	case "user":
		dropAndTell(t, process.Credentials{UID: 1000, GID: 1000})
	case "proc":
		restrictAndTell(t)
	case "namespaces":
		for _, name := range namespaces() {
			link, err := os.Readlink("/proc/thread-self/ns/" + name)
			fmt.Println(link, err)
		}
	}
}

func dropAndTell(t *testing.T, who process.Credentials) {
	status, err := os.Open("/proc/thread-self/status") // the filter may want no more opening
	if err != nil {
		t.Fatal(err)
	}
	dropped := confine(who)
	b := make([]byte, 8192)
	n, err := status.Read(b)
	fmt.Printf("dropped: %v\nread: %v\n%s", dropped, err, b[:n])
}

// TestPrivilegesAreGone looks at the kernel's own account of a thread behind
// confine: what it has, what it or a program that it starts could ever
// gain, and that a filter is there.
func TestPrivilegesAreGone(t *testing.T) {
	for who, want := range map[string]string{"root": "00000000800405fb", "user": "0000000000000000"} {
		if who == "user" && os.Getuid() != 0 {
			continue // has no other user to become
		}
		out := behind(t, who, &syscall.SysProcAttr{})
		for _, line := range []string{
			"dropped: <nil>", "CapBnd:\t00000000800405fb", "CapPrm:\t" + want, "CapEff:\t" + want,
			"CapInh:\t0000000000000000", "CapAmb:\t0000000000000000", "Seccomp:\t2",
		} {
			if !strings.Contains(out, line+"\n") {
				t.Errorf("%s: no line %q in %s", who, line, out)
			}
		}
	}
}

// restrictAndTell names what is open after restrictProc, in a mount namespace
// of its own.
func restrictAndTell(t *testing.T) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	if err := restrictProc(); err != nil {
		t.Fatal(err)
	}
	var null unix.Stat_t
	if err := unix.Stat("/dev/null", &null); err != nil {
		t.Fatal(err)
	}
	for _, path := range maskedPaths() {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == null.Rdev {
			continue
		}
		if list, err := os.ReadDir(path); err != nil || len(list) > 0 {
			fmt.Printf("open: %s, %v, %v\n", path, list, err)
		}
	}
	for _, path := range readOnlyPaths() {
		var fs unix.Statfs_t
		if err := unix.Statfs(path, &fs); !errors.Is(err, unix.ENOENT) && (err != nil || fs.Flags&unix.ST_RDONLY == 0) {
			fmt.Printf("writable: %s, %v\n", path, err)
		}
	}
	fmt.Println("restricted")
}

// TestProcIsRestricted: whatever of Podman's lists this system has, is hidden or
// read-only, and the lists have what matters most.
func TestProcIsRestricted(t *testing.T) {
	out := behind(t, "proc", &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS})
	if !strings.Contains(out, "restricted") || strings.Contains(out, "open: ") || strings.Contains(out, "writable: ") {
		t.Error(out)
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/kallsyms", "/proc/timer_list", "/sys/firmware", "/sys/class/virtio-ports"} {
		if !slices.Contains(maskedPaths(), path) {
			t.Errorf("%s is not masked", path)
		}
	}
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus"} {
		if !slices.Contains(readOnlyPaths(), path) {
			t.Errorf("%s is not read-only", path)
		}
	}
}

// namespaces are those that a workload shares with nobody.
func namespaces() []string { return []string{"pid", "mnt", "ipc", "uts"} }

// TestStageHasItsOwnNamespaces: the agent's processes, mounts, queues and name are
// not the workload's.
func TestStageHasItsOwnNamespaces(t *testing.T) {
	out := behind(t, "namespaces", stageAttributes())
	for _, name := range namespaces() {
		ours, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, ours) || !strings.Contains(out, name+":[") {
			t.Errorf("namespace %s is ours, %s: %s", name, ours, out)
		}
	}
}
