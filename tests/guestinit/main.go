// Guestinit is PID 1 of the machine that TestInterop boots: it loads modules,
// opens the disks of its plan and reports what came of each over a virtio
// port. It goes only into that test's initrd.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/tests/diskcase"
)

func main() {
	if err := boot(); err != nil {
		fmt.Println("guestinit:", err) // the host misses the results
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	if err := mountKernel(); err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	port, err := openPort(diskcase.ResultPort)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(diskcase.PlanPath)
	if err != nil {
		return err
	}
	var plan diskcase.Plan
	if err := json.Unmarshal(raw, &plan); err != nil {
		return fmt.Errorf("decoding plan: %w", err)
	}
	for _, c := range plan.Cases {
		fmt.Println("guestinit: case", c.Name)
		start := time.Now()
		r := diskcase.Result{Name: c.Name}
		if err := run(c); err != nil {
			r.Error = err.Error()
		}
		r.Millis = time.Since(start).Milliseconds()
		if err := report(port, r); err != nil {
			return err
		}
	}
	if err := bench(plan.Bench, func(r diskcase.Result) error { return report(port, r) }); err != nil {
		return err
	}
	return report(port, diskcase.Result{Name: diskcase.Done})
}

func report(port *os.File, r diskcase.Result) error {
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := port.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("reporting %s: %w", r.Name, err)
	}
	return nil
}

func mountKernel() error {
	for _, m := range [][2]string{{"/dev", "devtmpfs"}, {"/proc", "proc"}, {"/sys", "sysfs"}, {"/run", "tmpfs"}} {
		if err := unix.Mount(m[1], m[0], m[1], 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", m[0], err)
		}
	}
	return nil
}

// loadModules loads what the firmware brings, as the guest agent does.
func loadModules() error {
	lists, _ := filepath.Glob(firmware.ModulesFile + "*") // sorted: the file systems' come last
	var all []byte
	for _, path := range lists {
		list, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		all = append(all, list...)
	}
	for _, path := range strings.Fields(string(all)) {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		// ENODEV: the processor lacks what the module drives, such as AES.
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("loading %s: %w", path, err)
		}
	}
	return nil
}

// openPort opens the virtio port of a name. The port appears some time after
// its driver.
func openPort(name string) (*os.File, error) {
	const attempts, pause = 200, 25 * time.Millisecond
	for range attempts {
		ports, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, p := range ports {
			if b, err := os.ReadFile(p); err != nil || strings.TrimSpace(string(b)) != name {
				continue
			}
			path := "/dev/" + filepath.Base(filepath.Dir(p))
			// Not by os.OpenFile, which would make it non-blocking: a write
			// that returns has reached the host.
			fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, fmt.Errorf("opening %s: %w", path, err)
			}
			return os.NewFile(uintptr(fd), path), nil
		}
		time.Sleep(pause)
	}
	return nil, fmt.Errorf("no virtio port %s", name)
}
