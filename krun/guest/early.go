package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// modulesPath lists module files, one a line, in the order to load them, and
// with a dot and its name those of a file system. Only firmware with a modular
// kernel has them.
const (
	modulesPath = "/etc/ccrun/modules"
	modulesDir  = "/lib/modules"
)

const maxModulesList = 64 << 10

// mountKernel mounts what the agent itself needs. None of it reaches the
// workload. A kernel may have mounted devtmpfs already.
func (b *boot) mountKernel(context.Context) error {
	for _, m := range []mount{
		{"dev", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"proc", "/proc", "proc", noExec, ""},
		{"sysfs", "/sys", "sysfs", noExec, ""},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := m.do(); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	if err := SilenceKernel(); err != nil {
		return err
	}
	// Ctrl-Alt-Del becomes a signal to PID 1, which ignores it, and not a
	// restart behind the open disk's back.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	console, err := b.console.attach("/dev/console")
	if err == nil {
		b.spawn("listening to the console", func() { listenConsole(console, b.hostSignal) })
	}
	return err
}

func (b *boot) loadModules(context.Context) error {
	if err := loadList(modulesPath); err != nil {
		return err
	}
	return b.mountConfigfs()
}

// loadImageModules loads what only images with this one's cipher and file system
// take, and removes the others', which would stay in memory.
func (b *boot) loadImageModules(context.Context) error {
	for _, with := range []string{b.identity.Disk.CipherName(), b.identity.Disk.Filesystem} {
		if err := loadList(modulesPath + "." + with); err != nil {
			return err
		}
	}
	return os.RemoveAll(modulesDir)
}

func loadList(path string) error {
	list, err := bounded.File(path, maxModulesList)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(list)) {
		name := strings.TrimSpace(line)
		if name == "" {
			continue
		}
		if err := loadModule(name); err != nil {
			return hint.With(fmt.Errorf("loading %s: %w", name, err), "rebuild the firmware's module segment for this kernel")
		}
	}
	return nil
}

func loadModule(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	// ENODEV: a driver for a processor feature that this one lacks, as
	// aesni_intel without AES; the generic one does the work.
	if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return os.Remove(name) // it would stay in memory
}

// mountConfigfs mounts configfs where the kernel has it, for configfs-tsm.
func (b *boot) mountConfigfs() error {
	if _, err := os.Stat(configfsPath); err != nil {
		return nil
	}
	return mount{"configfs", configfsPath, "configfs", noExec, ""}.do()
}

// readIdentity reads the measured identity. Its digest is of the bytes as
// they are, which DecodeIdentity has shown to be canonical.
func (b *boot) readIdentity(context.Context) error {
	raw, err := bounded.File(krun.IdentityPath, krun.MaxIdentityBytes)
	if err != nil {
		return hint.With(err, "the initrd has no identity segment; build the image with `ccrun build`")
	}
	return b.takeIdentity(raw)
}

func (b *boot) takeIdentity(raw []byte) (err error) {
	if b.identity, err = krun.DecodeIdentity(raw); err != nil {
		return err
	}
	if b.identity.Version != krun.IdentityVersion {
		return hint.With(fmt.Errorf("identity of version %d, expected %d: an image's agent and its identity are made together", b.identity.Version, krun.IdentityVersion),
			"build the image again")
	}
	b.identityDigest = kbs.Sum384(raw)
	return nil
}

func (b *boot) refuseACPI(context.Context) error {
	return checkACPI(acpiPath, b.identity.Policy.AllowACPI)
}

// wantRandom is checkRandom of this machine.
func (b *boot) wantRandom(context.Context) error {
	info, err := bounded.File(cpuinfoPath, maxCPUInfoBytes)
	if err != nil {
		return err
	}
	return checkRandom(string(info))
}
