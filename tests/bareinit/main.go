// Bareinit is PID 1 of the machine that BenchmarkStart compares ours with: it
// loads the firmware's modules, mounts a plain disk, read-only as images of
// BTRFS are, and becomes a shell there.
// It goes only into that benchmark's initrd.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The same as krun/firmware.ModulesFile and krun.StdoutPort: this program links
// nothing that a plain machine's would not.
const (
	modulesFile = "/etc/ccrun/modules"
	scriptFile  = "/etc/script"
	kindFile    = "/etc/filesystem"
	portName    = "krun-stdout"
	disk        = "/dev/vda"
	root        = "/newroot"
)

func main() {
	err := run()
	fmt.Println("bareinit:", err) // run returns only if it failed
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func run() error {
	for _, m := range [][2]string{{"/dev", "devtmpfs"}, {"/proc", "proc"}, {"/sys", "sysfs"}} {
		if err := mount(m[1], m[0], m[1]); err != nil {
			return err
		}
	}
	script, err := os.ReadFile(scriptFile)
	if err != nil {
		return err
	}
	kind, err := os.ReadFile(kindFile)
	if err != nil {
		return err
	}
	if err := loadModules(string(kind)); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	if err := await(func() error { return mountFlags(disk, root, string(kind), unix.MS_RDONLY) }); err != nil {
		return err
	}
	if err := mount("proc", root+"/proc", "proc"); err != nil {
		return err
	}
	if err := errors.Join(unix.Chroot(root), unix.Chdir("/"), unix.Dup2(port, 1)); err != nil {
		return err
	}
	return unix.Exec("/bin/sh", []string{"/bin/sh", "-c", string(script)}, []string{"PATH=/bin"})
}

func mount(source, target, kind string) error { return mountFlags(source, target, kind, 0) }

func mountFlags(source, target, kind string, flags uintptr) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", target, err)
	}
	return nil
}

func loadModules(kind string) error {
	list, err := os.ReadFile(modulesFile)
	if err != nil {
		return err
	}
	filesystem, err := os.ReadFile(modulesFile + "." + kind)
	if err != nil {
		return err
	}
	for _, path := range strings.Fields(string(list) + string(filesystem)) {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("loading %s: %w", path, err)
		}
	}
	return nil
}

// openPort opens the port blocking, so that what was written has arrived.
func openPort() (fd int, err error) {
	err = await(func() error {
		ports, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, p := range ports {
			if b, err := os.ReadFile(p); err == nil && strings.TrimSpace(string(b)) == portName {
				fd, err = unix.Open("/dev/"+filepath.Base(filepath.Dir(p)), unix.O_WRONLY, 0)
				return err
			}
		}
		return fmt.Errorf("no port %s", portName)
	})
	return fd, err
}

// await tries for as long as devices may take to appear.
func await(try func() error) (err error) {
	for range 2000 {
		if err = try(); err == nil {
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}
