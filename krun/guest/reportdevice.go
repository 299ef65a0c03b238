package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
)

// The report device is how the agent proved itself, and how a workload that had
// it could prove to be this VM to whoever asks it to. What follows takes it away
// where the kernel gives it up: drivers that are modules. Built in, SEV's cannot
// be unbound (module_platform_driver_probe), and TDX's is a misc device that
// nothing ends. Then three barriers are left, each by itself enough: no node of
// it anywhere, and none that can be made (capabilities, system call filter) or
// opened (MS_NODEV); and the server, which gives this VM no key any more.

// reportModules are the drivers behind a report device.
func reportModules() []string { return []string{"sev_guest", "tdx_guest"} }

// reportDevices are its names as a misc device.
func reportDevices() []string { return []string{"sev-guest", "tdx_guest"} }

// reportDriver is the platform driver that can be bound.
const reportDriver = "/sys/bus/platform/drivers/sev-guest"

// deviceNodes are removed from the agent's own /dev too, which the workload
// never sees.
func deviceNodes() []string {
	return []string{"/dev/sev-guest", "/dev/tdx_guest", "/dev/mem", "/dev/kmem", "/dev/port", "/dev/kmsg", "/dev/nvram"}
}

// giveUpReports takes the report device away as far as the kernel lets it, and
// from all but the workload's service where that has it open: a driver in use is
// not unloaded. It says nothing of how far that is: reportsLeft does.
func giveUpReports(service bool) error {
	if err := unix.Unmount(configfsPath, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", configfsPath, err)
	}
	for _, name := range reportModules() { // ENOSYS: a kernel without modules
		err := unix.DeleteModule(name, unix.O_NONBLOCK)
		if service && (errors.Is(err, unix.EWOULDBLOCK) || errors.Is(err, unix.EBUSY)) {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("unloading %s: %w", name, err)
		}
	}
	if port, err := findPort(portsClass, reportPort); err == nil {
		if err := os.Remove(port); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing the report port: %w", err)
		}
	}
	for _, path := range deviceNodes() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing device node: %w", err)
		}
	}
	return nil
}

// remains is what is left of the report device.
type remains struct {
	ways   []string // to a report, each of which ends the boot
	kernel []string // what the kernel does not give up
}

// but takes drivers that the workload's service has in use from the ways: with it
// the device is out of reach as where its driver is built in.
func (r remains) but(service bool) remains {
	if !service {
		return r
	}
	inUse := func(way string) bool { return strings.HasPrefix(way, loadedDriver) }
	for _, way := range r.ways {
		if inUse(way) {
			r.kernel = append(r.kernel, way)
		}
	}
	r.ways = slices.DeleteFunc(slices.Clone(r.ways), inUse)
	return r
}

// refusal is an error if a way is left.
func (r remains) refusal() error {
	if len(r.ways) == 0 {
		return nil
	}
	return fmt.Errorf("the report device is not gone: %s", strings.Join(r.ways, ", "))
}

// reportsLeft looks for every way to a report below root, the agent's own.
func reportsLeft(root string) (r remains, err error) {
	nodes := deviceNodes()
	if port, err := findPort(filepath.Join(root, portsClass), reportPort); err == nil {
		nodes = append(nodes, port)
	}
	for _, path := range append(nodes, configfsPath+"/tsm") {
		if _, err := os.Lstat(filepath.Join(root, path)); !errors.Is(err, os.ErrNotExist) {
			r.ways = append(r.ways, path)
		}
	}
	for _, look := range []func(string, *remains) error{loadedDrivers, mountedConfigfs, openDevices} {
		if err := look(root, &r); err != nil {
			return r, fmt.Errorf("looking for the report device: %w", err)
		}
	}
	for _, name := range reportDevices() {
		if _, err := os.Lstat(filepath.Join(root, "/sys/class/misc", name)); !errors.Is(err, os.ErrNotExist) {
			r.kernel = append(r.kernel, "/sys/class/misc/"+name)
		}
	}
	entries, err := os.ReadDir(filepath.Join(root, reportDriver))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	for _, e := range entries {
		if e.Type() == os.ModeSymlink && e.Name() != "module" {
			r.kernel = append(r.kernel, reportDriver+"/"+e.Name())
		}
	}
	return r, err
}

// loadedDriver begins the way to a report that a driver is.
const loadedDriver = "module "

// loadedDrivers finds drivers that could have been unloaded.
func loadedDrivers(root string, r *remains) error {
	list, err := bounded.File(filepath.Join(root, "/proc/modules"), 1<<20)
	if errors.Is(err, os.ErrNotExist) {
		return nil // a kernel without modules
	}
	for line := range strings.Lines(string(list)) {
		name, _, _ := strings.Cut(line, " ")
		if slices.Contains(reportModules(), name) {
			r.ways = append(r.ways, loadedDriver+name)
		}
	}
	return err
}

func mountedConfigfs(root string, r *remains) error {
	list, err := bounded.File(filepath.Join(root, "/proc/self/mounts"), 1<<20)
	for line := range strings.Lines(string(list)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "configfs" {
			r.ways = append(r.ways, "configfs on "+f[1])
		}
	}
	return err
}

// openDevices finds those that the agent itself still has open: the workload's
// first program is its child.
func openDevices(root string, r *remains) error {
	dir := filepath.Join(root, "/proc/self/fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	devices := []string{"/dev/sev-guest", "/dev/tdx_guest"}
	if port, err := findPort(filepath.Join(root, portsClass), reportPort); err == nil {
		devices = append(devices, port)
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && slices.Contains(devices, strings.TrimSuffix(target, " (deleted)")) {
			r.ways = append(r.ways, "descriptor "+e.Name()+" of "+target)
		}
	}
	return nil
}
