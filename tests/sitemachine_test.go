package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// siteMachine is Debian 13 with its systemd as PID 1, Podman and our programs, in
// namespaces of its own. Its disk is a file, so that its power can be cut.
type siteMachine struct {
	t        *testing.T
	dir      string // of this test, at the same place inside
	disk     string // where the disk's file system is mounted outside
	root     string
	bin      string
	firmware string
	cmd      *exec.Cmd
	log      bytes.Buffer
	began    time.Time
}

func newSiteMachine(t *testing.T) *siteMachine {
	t.Helper()
	endToEnd(t)
	if os.Getenv("CCRUN_INSIDE") != "" {
		t.Skipf("%s runs outside of another suite's root", t.Name())
	}
	root, err := filepath.EvalSymlinks(filepath.Join(os.Getenv("CCRUN_RIG"), "root"))
	if err != nil {
		t.Fatalf("the rig has no root (`make rig`): %v", err)
	}
	dir := t.TempDir()
	m := &siteMachine{t: t, dir: filepath.Join(dir, "shared"), disk: filepath.Join(dir, "disk"), root: root, bin: binDir(t),
		firmware: os.Getenv("CCRUN_SIM_FIRMWARE"), began: time.Now()}
	for _, d := range []string{m.dir, m.disk} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(dir, "disk.img")
	m.outside("truncate", "-s", "8G", image)
	m.outside("mkfs.ext4", "-q", "-E", "lazy_itable_init=1", image)
	m.outside("mount", "-o", "loop", image, m.disk)
	t.Cleanup(m.end)
	if err := os.Symlink(filepath.Join(m.bin, "ccrun-sim"), filepath.Join(m.dir, "krun-sim")); err != nil {
		t.Fatal(err)
	}
	return m
}

// outside runs a command on the machine under the machine.
func (m *siteMachine) outside(name string, arg ...string) {
	m.t.Helper()
	tool := name
	if !strings.Contains(name, "/") {
		tool = systemTool(m.t, name)
	}
	if out, err := exec.Command(tool, arg...).CombinedOutput(); err != nil {
		m.t.Fatalf("%s %s: %v: %s", name, strings.Join(arg, " "), err, out)
	}
}

// boot switches the machine on and waits until it is up.
func (m *siteMachine) boot() {
	m.t.Helper()
	m.cmd = exec.Command("rig/systemd.sh", m.root, m.disk, strings.Join([]string{m.dir, m.bin, m.firmware}, ":"))
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	// Not is-system-running: that waits for the workloads. Who asks a systemd that
	// is not there yet may never be answered.
	up := func() bool {
		return m.try("timeout", "10", "systemctl", "is-active", "multi-user.target").code == 0 || !m.alive()
	}
	if !eventually(up) || !m.alive() {
		m.t.Fatalf("systemd does not come up: %s\n%s", m.try("systemctl", "--failed"), m.log.String())
	}
	m.note("booted")
}

// alive says whether the machine has not ended by itself.
func (m *siteMachine) alive() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	return err == nil && !bytes.Contains(b, []byte(") Z "))
}

// init is the machine's PID 1 as we see it; 0: it does not run.
func (m *siteMachine) init() int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", m.cmd.Process.Pid, m.cmd.Process.Pid))
	pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err != nil || string(comm) != "systemd\n" {
		return 0
	}
	return pid
}

// cutPower loses what the machine has not made sure of: its file system stops as
// it is, with nothing flushed, and then everything is killed.
func (m *siteMachine) cutPower() {
	m.t.Helper()
	d, err := os.Open(m.disk)
	if err != nil {
		m.t.Fatal(err)
	}
	const shutdown, withoutFlush = 0x8004587d, 2 // EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
	err = errors.Join(unix.IoctlSetPointerInt(int(d.Fd()), shutdown, withoutFlush), d.Close())
	if err != nil {
		m.t.Fatalf("stopping the file system: %v", err)
	}
	m.kill()
	m.outside("umount", m.disk)
	// As long as anybody has the old mount, another would be of the same dead file
	// system.
	image := filepath.Join(filepath.Dir(m.disk), "disk.img")
	free := func() bool {
		out, err := exec.Command(systemTool(m.t, "losetup"), "-j", image).Output()
		return err == nil && len(out) == 0
	}
	if !eventually(free) {
		m.t.Fatal("the disk stays in use after the power cut")
	}
	m.outside("mount", "-o", "loop", image, m.disk)
	m.note("power cut")
}

// kill ends PID 1, and with it everything in its namespace.
func (m *siteMachine) kill() {
	if m.cmd == nil {
		return
	}
	pid := m.init()
	if pid == 0 {
		pid = m.cmd.Process.Pid // whose child dies with it
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	_ = m.cmd.Wait()
	m.cmd = nil
}

func (m *siteMachine) end() {
	if m.t.Failed() && m.cmd != nil {
		m.t.Logf("the journal:\n%s", m.try("journalctl", "-b", "--no-pager", "-n", "300"))
	}
	m.kill()
	_ = eventually(func() bool { return exec.Command("umount", m.disk).Run() == nil })
	if left := processesNaming(filepath.Dir(m.disk)); len(left) > 0 {
		m.t.Errorf("left over: %s", strings.Join(left, "\n"))
	}
	m.outside("./rig/systemd.sh", "remove", m.disk)
}

// try runs a command inside.
func (m *siteMachine) try(name string, arg ...string) result {
	if m.init() == 0 {
		return result{"", "the machine is off", -1}
	}
	args := append([]string{"-t", strconv.Itoa(m.init()), "-a", "--", "env", "-i", "PATH=" + m.bin + ":/usr/sbin:/usr/bin", "HOME=/root", name}, arg...)
	cmd := exec.Command("nsenter", args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		return result{"", err.Error(), -1}
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must is try for what has to succeed.
func (m *siteMachine) must(name string, arg ...string) string {
	m.t.Helper()
	r := m.try(name, arg...)
	if r.code != 0 {
		m.t.Fatalf("%s %s: %s", name, strings.Join(arg, " "), r)
	}
	return r.stdout
}

// write makes a file inside.
func (m *siteMachine) write(path, content string) {
	m.t.Helper()
	from := filepath.Join(m.dir, "file")
	write(m.t, from, []byte(content))
	m.must("install", "-D", "-m", "0644", from, path)
}

// show is a property of a unit.
func (m *siteMachine) show(unit, property string) string {
	return strings.TrimSpace(m.try("systemctl", "show", "--value", "-p", property, unit).stdout)
}

// await waits for a property of a unit to be so.
func (m *siteMachine) await(unit, property, want string) {
	m.t.Helper()
	if !eventually(func() bool { return strings.Contains(m.show(unit, property), want) }) {
		m.t.Fatalf("%s of %s is %q, expected %q\n%s", property, unit, m.show(unit, property), want, m.try("systemctl", "status", "--no-pager", unit))
	}
	m.note(fmt.Sprintf("%s: %s %s", unit, property, want))
}

// lines of a unit's journal of this boot.
func (m *siteMachine) journal(unit string) string {
	return m.try("journalctl", "-b", "--no-pager", "-o", "cat", "-u", unit).stdout
}

func (m *siteMachine) note(what string) {
	m.t.Logf("%5.1f s  %s", time.Since(m.began).Seconds(), what)
}
