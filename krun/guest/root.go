package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// enterRoot makes the disk's file system the root of this mount namespace and
// fills in what a container expects. Everything of the agent's is unmounted
// first: devtmpfs with its devices, sysfs, the agent's /proc and /run.
func enterRoot(spec *stageSpec) error {
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	for _, dir := range []string{"/dev", "/sys", "/run", "/proc"} {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting the agent's %s: %w", dir, err)
		}
	}
	if err := switchRoot(newRoot); err != nil {
		return err
	}
	if err := mountContainer(spec.ReadOnly); err != nil {
		return err
	}
	if err := openStdin("/dev/null"); err != nil {
		return err
	}
	if err := writeEtc(spec); err != nil {
		return err
	}
	if err := replaceFile("/run/.containerenv", nil); err != nil && !errors.Is(err, unix.EROFS) {
		return fmt.Errorf("saying that this is a container: %w", err)
	}
	return restrictProc()
}

// switchRoot moves dir over the initramfs (which pivot_root cannot replace)
// and enters it; nothing below can be reached from there any more, because
// ".." of the topmost mount is itself.
func switchRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("entering the disk: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the disk to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("changing root to the disk: %w", err)
	}
	return unix.Chdir("/")
}

// containerMounts are Podman's, with /sys read-only and no control groups.
func containerMounts(readOnly bool) []mount {
	list := []mount{
		{"proc", "/proc", "proc", noExec, ""},
		{"tmpfs", "/dev", "tmpfs", unix.MS_NOSUID | unix.MS_NOEXEC | unix.MS_STRICTATIME, "mode=755,size=65536k"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"shm", "/dev/shm", "tmpfs", noExec, "mode=1777,size=65536k"},
		{"mqueue", "/dev/mqueue", "mqueue", noExec, ""},
		{"sysfs", "/sys", "sysfs", noExec | unix.MS_RDONLY, ""},
	}
	if !readOnly {
		return list
	}
	for _, dir := range []string{"/run", "/tmp", "/var/tmp"} {
		list = append(list, mount{"tmpfs", dir, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"})
	}
	return list
}

func mountContainer(readOnly bool) error {
	for _, m := range containerMounts(readOnly) {
		err := m.do()
		switch {
		case errors.Is(err, unix.EROFS) && m.fstype == "tmpfs": // a read-only image without that directory
		case errors.Is(err, unix.ENODEV) && m.fstype == "mqueue": // kernel without it
		case err != nil:
			return classed(classDirectory, err) // /proc, /sys and /dev are needed if the file system is read-only
		}
	}
	return makeDevices("/dev")
}

// A deviceNode is a character device of the workload's /dev.
type deviceNode struct {
	name         string
	major, minor uint32
}

// deviceNodes of the OCI runtime specification ("Default Devices"), without
// console: it is the host's end of the log, which the policy governs.
func defaultDevices() []deviceNode {
	return []deviceNode{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7},
		{"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
	}
}

func makeDevices(dev string) error {
	for _, d := range defaultDevices() {
		path := filepath.Join(dev, d.name)
		if err := unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("making %s: %w", path, err)
		}
		if err := unix.Chmod(path, 0o666); err != nil {
			return fmt.Errorf("making %s: %w", path, err)
		}
	}
	for link, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "core": "/proc/kcore",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dev, link)); err != nil {
			return err
		}
	}
	return nil
}

// openStdin makes path the workload's standard input. The stage's own is of the
// agent's /dev, which the workload would find under a name that is none here.
func openStdin(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = errors.Join(unix.Dup3(fd, 0, 0), unix.Close(fd))
	}
	if err != nil {
		return fmt.Errorf("opening standard input: %w", err)
	}
	return nil
}

// writeEtc gives the image the names of this VM, as Podman does over what the
// image has.
func writeEtc(spec *stageSpec) error {
	files := map[string]string{"/etc/hosts": spec.Hosts, "/etc/hostname": spec.Hostname + "\n"}
	if spec.ResolvConf != "" {
		files["/etc/resolv.conf"] = spec.ResolvConf
	}
	place := replaceFile
	if spec.ReadOnly {
		place = coverFile
	}
	for path, text := range files {
		if err := place(path, []byte(text)); err != nil {
			return fmt.Errorf("replacing %s: %w", path, err)
		}
	}
	if spec.ReadOnly {
		return nil
	}
	// Old programs look there for what is mounted.
	if err := os.Symlink("/proc/mounts", "/etc/mtab"); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// replaceFile first removes what is there: it may be a symbolic link, to
// somewhere that does not exist yet.
func replaceFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, text, 0o644)
}

// coverFile mounts a file in memory over path, if the read-only image has one
// to mount on. The mount outlives the file's name.
func coverFile(path string, text []byte) error {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	const source = "/dev/.cover"
	if err := os.WriteFile(source, text, 0o644); err != nil {
		return err
	}
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return os.Remove(source)
}

// maskedPaths and readOnlyPaths are Podman's, and what tells of a report device
// that the kernel keeps.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/proc/iomem", "/proc/ioports", "/proc/kallsyms",
		"/sys/firmware", "/sys/fs/selinux", "/sys/dev/block", "/sys/devices/virtual/powercap", "/sys/class/virtio-ports",
		"/sys/kernel/config", "/sys/devices/virtual/misc/sev-guest", "/sys/devices/virtual/misc/tdx_guest", "/sys/bus/platform/drivers/sev-guest",
	}
}

func readOnlyPaths() []string {
	return []string{"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func restrictProc() error {
	for _, path := range maskedPaths() {
		if err := mask(path); err != nil {
			return fmt.Errorf("masking %s: %w", path, err)
		}
	}
	for _, path := range readOnlyPaths() {
		if err := makeReadOnly(path); err != nil {
			return fmt.Errorf("making %s read-only: %w", path, err)
		}
	}
	return nil
}

// mask hides a file behind /dev/null and a directory behind an empty one.
func mask(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case st.IsDir():
		return unix.Mount("tmpfs", path, "tmpfs", noExec|unix.MS_RDONLY, "size=0k")
	}
	return unix.Mount("/dev/null", path, "", unix.MS_BIND, "")
}

func makeReadOnly(path string) error {
	err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, "")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	return unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|noExec, "")
}
