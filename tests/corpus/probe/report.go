package main

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

func item(key string, value any) {
	fmt.Printf("@@ %s = %s\n", key, strings.ReplaceAll(fmt.Sprint(value), "\n", `\n`))
}

// report prints all that a program can tell about where it runs.
func report(trees []string) {
	process()
	status()
	limits()
	mounts()
	network()
	access()
	list("/", 1)
	list("/dev", 2)
	for _, t := range trees {
		if t != "" {
			list(t, 64)
		}
	}
}

func process() {
	groups, _ := os.Getgroups()
	groups = append(groups, os.Getgid()) // listed again or not, it makes no difference
	slices.Sort(groups)
	groups = slices.Compact(groups)
	mask := syscall.Umask(0)
	syscall.Umask(mask)
	cwd, _ := os.Getwd()
	host, _ := os.Hostname()
	session, _, _ := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0)
	var name syscall.Utsname
	_ = syscall.Uname(&name)
	item("user", fmt.Sprintf("%d:%d groups %v", os.Getuid(), os.Getgid(), groups))
	item("umask", fmt.Sprintf("%04o", mask))
	item("cwd", cwd)
	item("pid", fmt.Sprintf("%d, parent %d, session %d", os.Getpid(), os.Getppid(), session))
	item("hostname", host)
	item("kernel", charsOf(name.Release[:]))
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		item("env "+k, v)
	}
	for fd := range 32 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err == nil && !strings.Contains(to, "anon_inode") && !strings.HasPrefix(to, "/proc/") && !strings.HasPrefix(to, "/sys/fs/cgroup/") {
			kind, _, _ := strings.Cut(to, ":")
			item(fmt.Sprintf("fd %d", fd), kind)
		}
	}
}

func charsOf(release []int8) string {
	var b strings.Builder
	for _, c := range release {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

func status() {
	for key, value := range fields("/proc/self/status", ":") {
		if strings.HasPrefix(key, "Cap") || key == "NoNewPrivs" || key == "Seccomp" {
			item(key, value)
		}
	}
}

// fields yields what stands before and behind the first separator of each line.
func fields(path, separator string) func(func(key, value string) bool) {
	return func(yield func(key, value string) bool) {
		f, err := os.Open(path)
		if err != nil {
			item("open "+path, reason(err))
			return
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			key, value, _ := strings.Cut(lines.Text(), separator)
			if !yield(key, strings.TrimSpace(value)) {
				return
			}
		}
	}
}

func limits() {
	for line := range fields("/proc/self/limits", "\x00") {
		if len(line) > 26 && strings.HasPrefix(line, "Max ") {
			item("limit "+strings.TrimSpace(line[4:26]), strings.Join(strings.Fields(line[26:]), " "))
		}
	}
}

func mounts() {
	for line := range fields("/proc/self/mountinfo", "\x00") {
		before, after, _ := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if below(b[4], "/proc") || below(b[4], "/sys") {
			continue // what is hidden there depends on the kernel: access tells
		}
		var flags []string
		for _, o := range strings.Split(b[5], ",") {
			if o != "relatime" && o != "noatime" {
				flags = append(flags, o)
			}
		}
		item("mount "+b[4], a[0]+" "+strings.Join(flags, ","))
	}
}

func network() {
	interfaces, err := net.Interfaces()
	if err != nil {
		item("interfaces", reason(err))
		return
	}
	for _, i := range interfaces {
		addresses, _ := i.Addrs()
		item("interface "+i.Name, fmt.Sprint(i.Flags&net.FlagUp != 0, addresses))
	}
}

// access tries what a program may want to write, or must not read.
func access() {
	for _, dir := range []string{"/", "/etc", "/tmp", "/var/tmp", "/var/lib", "/run", "/dev", "/dev/shm", "."} {
		f, err := os.CreateTemp(dir, ".probe")
		if err == nil {
			f.Close()
			os.Remove(f.Name())
		}
		item("write "+dir, reason(err))
	}
	for _, path := range []string{"/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/irq/default_smp_affinity", "/sys/module/kernel/parameters/panic"} {
		item("may write "+path, open(path, os.O_WRONLY) == nil)
	}
	for _, path := range []string{"/proc/acpi", "/proc/iomem", "/proc/ioports", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/kmsg",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/dev/block", "/sys/firmware", "/sys/fs/selinux"} {
		item("tells "+path, tells(path))
	}
	for _, path := range []string{"/dev/null", "/dev/tty", "/dev/console"} {
		item("open "+path, reason(open(path, os.O_RDONLY)))
	}
}

// tells says whether a path has any content: a file or directory that is
// hidden is empty, denied or missing.
func tells(path string) bool {
	if d, err := os.ReadDir(path); err == nil {
		return len(d) > 0
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	n, _ := f.Read(make([]byte, 1))
	return n > 0
}

func below(path, dir string) bool {
	return strings.HasPrefix(path, dir+"/") && path != "/sys/fs/cgroup"
}

func open(path string, flag int) error {
	f, err := os.OpenFile(path, flag, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func reason(err error) string {
	if err == nil {
		return "yes"
	}
	for {
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return err.Error()
		}
		err = u.Unwrap()
	}
}

// list prints each file below top: mode, owner, and links, size, time and
// content of a file, the target of a link, the numbers of a device.
func list(top string, depth int) {
	_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			item("file "+path, reason(err))
			return nil
		}
		info, err := d.Info()
		if err != nil {
			item("file "+path, reason(err))
			return nil
		}
		st := info.Sys().(*syscall.Stat_t)
		item("file "+path, fmt.Sprintf("%v %d:%d %s", info.Mode(), st.Uid, st.Gid, detail(path, info, st)))
		below, _ := filepath.Rel(top, path)
		if d.IsDir() && path != top && strings.Count(below, "/")+2 > depth {
			return fs.SkipDir
		}
		return nil
	})
}

func detail(path string, info fs.FileInfo, st *syscall.Stat_t) string {
	switch info.Mode().Type() {
	case 0:
		return fmt.Sprintf("links %d size %d time %s %s", st.Nlink, st.Size, age(info), content(path, st.Size))
	case fs.ModeSymlink:
		to, _ := os.Readlink(path)
		return "-> " + to
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		return fmt.Sprintf("%d:%d", st.Rdev>>8, st.Rdev&255)
	}
	return ""
}

// age tells what is written as the container starts from what the image holds,
// which build.sh makes no younger than a day.
func age(info fs.FileInfo) string {
	if time.Since(info.ModTime()) < time.Hour {
		return "now"
	}
	return fmt.Sprint(info.ModTime().Unix())
}

// content is a digest, but for what takes an emulated processor long.
func content(path string, size int64) string {
	if size > 64<<10 {
		return ""
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return reason(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:16]
}
