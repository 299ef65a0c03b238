package tests

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/tests/diskcase"
)

// interopTimeout bounds one boot that hangs. The longer one takes some 40 s of
// processor time.
const interopTimeout = 2 * patience

// interopMachine boots the simulator's kernel with guestinit as its agent.
type interopMachine struct {
	firmware *firmware.Bundle
	kernel   string // file
	agent    []byte // initrd segment
	peers    string // directory with cryptsetup and its libraries
}

func newInteropMachine(t *testing.T) *interopMachine {
	t.Helper()
	for _, tool := range []string{"qemu-system-x86_64", "cpio", "ldd"} {
		_, err := exec.LookPath(tool)
		need(t, err)
	}
	dir := t.TempDir()
	m := &interopMachine{kernel: filepath.Join(dir, "vmlinuz"), peers: filepath.Join(dir, "peers")}
	var err error
	if m.firmware, err = firmware.Load(os.Getenv("CCRUN_SIM_FIRMWARE")); err != nil {
		need(t, err)
	}
	write(t, m.kernel, m.firmware.Kernel)
	agent := filepath.Join(dir, "guestinit")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", agent, "./guestinit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the guest's init: %v: %s", err, out)
	}
	elf, err := os.ReadFile(agent)
	if err != nil {
		t.Fatal(err)
	}
	if m.agent, err = firmware.AgentSegment(elf); err != nil {
		t.Fatal(err)
	}
	copyCryptsetup(t, filepath.Join(m.peers, diskcase.CryptsetupDir))
	return m
}

// systemTool finds a program of Debian's sbin, too, which a user's PATH lacks.
func systemTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = filepath.Join("/usr/sbin", name)
		_, err = os.Stat(path)
	}
	need(t, err)
	return path
}

// copyCryptsetup puts cryptsetup, its loader and its libraries in dir.
func copyCryptsetup(t *testing.T, dir string) {
	t.Helper()
	program := systemTool(t, "cryptsetup")
	libraries, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Fatalf("listing the libraries of %s: %v", program, err)
	}
	files := map[string]string{"cryptsetup": program}
	for _, match := range regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(string(libraries), -1) {
		name := filepath.Join("lib", filepath.Base(match[1]))
		if strings.Contains(match[1], "ld-linux") {
			name = "ld.so"
		}
		files[name] = match[1]
	}
	for name, from := range files {
		to := filepath.Join(dir, name)
		copyFile(t, from, to)
		if err := os.Chmod(to, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// initrd has the firmware's modules, guestinit, cryptsetup and the plan.
func (m *interopMachine) initrd(t *testing.T, disks []*interopDisk) []byte {
	t.Helper()
	var plan diskcase.Plan
	for _, d := range disks {
		if d.part {
			continue
		}
		if d.bench {
			plan.Bench = append(plan.Bench, d.Case)
			continue
		}
		plan.Cases = append(plan.Cases, d.Case)
	}
	write(t, filepath.Join(m.peers, diskcase.PlanPath), marshal(t, plan))
	var names strings.Builder
	err := filepath.WalkDir(m.peers, func(path string, _ fs.DirEntry, err error) error {
		if name, ok := strings.CutPrefix(path, m.peers+"/"); ok {
			names.WriteString(name + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	pack := exec.Command("cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0")
	pack.Dir, pack.Stdin = m.peers, strings.NewReader(names.String())
	peers, err := pack.Output()
	if err != nil {
		t.Fatalf("packing the initrd: %v", err)
	}
	segments, err := firmware.ComposeInitrd(m.agent, peers)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := m.firmware.BootInitrd(segments)
	if err != nil {
		t.Fatal(err)
	}
	return initrd
}

// Processors to boot on. The first is the simulator's: see krun/sim for the
// reasons. On the other the kernel's generic code does the cryptography.
const (
	simProcessor   = "max,-avx2,-cx16"
	noAESProcessor = simProcessor + ",-aes"
)

// boot runs the disks' cases and returns what the guest reported.
func (m *interopMachine) boot(t *testing.T, processor string, disks []*interopDisk) *interopReport {
	t.Helper()
	dir := t.TempDir()
	initrd, results := filepath.Join(dir, "initrd"), filepath.Join(dir, "results")
	write(t, initrd, m.initrd(t, disks))
	args := []string{"-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot",
		"-M", "q35", "-accel", "tcg,thread=multi", "-cpu", processor, "-smp", "1", "-m", "512",
		"-kernel", m.kernel, "-initrd", initrd, "-append", "console=ttyS0 quiet loglevel=4 panic=-1 no_timer_check",
		"-serial", "stdio", "-device", "virtio-serial-pci", "-chardev", "file,id=results,path=" + results,
		"-device", "virtserialport,chardev=results,name=" + diskcase.ResultPort}
	for i, d := range disks {
		args = append(args, d.drive(fmt.Sprint("disk", i))...)
		args = append(args, "-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=%s", i, d.Serial))
	}
	ctx, cancel := context.WithTimeout(context.Background(), interopTimeout)
	defer cancel()
	start := time.Now()
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64", args...)
	console, err := qemu.CombinedOutput()
	if p := qemu.ProcessState; p != nil {
		t.Logf("QEMU ran %d cases in %v, with %v of processor time", len(disks),
			time.Since(start).Round(time.Millisecond), (p.UserTime() + p.SystemTime()).Round(time.Millisecond))
	}
	r := &interopReport{console: string(console), results: map[string]diskcase.Result{}}
	if err := errors.Join(err, ctx.Err(), r.read(results)); err != nil {
		t.Errorf("QEMU: %v%s", err, r.takeConsole())
	}
	return r
}

// drive has QEMU open the disk's file, and log what the guest writes where that is
// asked for.
func (d *interopDisk) drive(id string) []string {
	if d.log != "" {
		return []string{"-blockdev", fmt.Sprintf("driver=blklogwrites,node-name=%s,file.driver=file,file.cache.no-flush=on,file.filename=%s,"+
			"log.driver=file,log.cache.no-flush=on,log.filename=%s", id, d.path, d.log)}
	}
	drive := fmt.Sprintf("if=none,id=%s,format=raw,cache=unsafe,file=%s", id, d.path)
	if d.ReadOnly {
		drive += ",readonly=on"
	}
	return []string{"-drive", drive}
}

// interopReport is what one boot reported.
type interopReport struct {
	console string
	results map[string]diskcase.Result
}

// takeConsole is what the guest printed, for the first failure of a boot.
func (r *interopReport) takeConsole() string {
	if r.console == "" {
		return ""
	}
	defer func() { r.console = "" }()
	return "\nconsole of the guest:\n" + r.console
}

// read reads the results. A guest that died half way lacks the last.
func (r *interopReport) read(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		var result diskcase.Result
		if err := json.Unmarshal(s.Bytes(), &result); err != nil {
			return fmt.Errorf("decoding result %q: %w", s.Text(), err)
		}
		if _, twice := r.results[result.Name]; twice {
			return fmt.Errorf("two results for %q", result.Name)
		}
		r.results[result.Name] = result
	}
	if _, ok := r.results[diskcase.Done]; !ok {
		return fmt.Errorf("the guest ended after %d results, before its plan did", len(r.results))
	}
	return nil
}

// want fails the test unless the guest reported success.
func (r *interopReport) want(t *testing.T, name string) {
	t.Helper()
	result, ok := r.results[name]
	switch {
	case !ok:
		t.Fatalf("the guest reported nothing%s", r.takeConsole())
	case result.Error != "":
		t.Fatalf("in the guest: %s%s", result.Error, r.takeConsole())
	}
	t.Logf("in the guest: %d ms", result.Millis)
}
