package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Where a runtime puts things in the monitor's container.
const (
	InsideConfig   = "/.ccrun/vmm.json"
	InsideFirmware = "/.ccrun/firmware"
	InsideTemp     = "/.ccrun/tmp"
	InsideImage    = "/workload"
)

// hostDirs are what QEMU needs of the host besides its own binary: libraries,
// its modules, boot ROMs. No other program is there, so that `podman exec`,
// which would run beside the VM and not in it, finds none to run.
var hostDirs = []string{
	"lib", "lib32", "lib64", "libx32", "usr/lib", "usr/lib32", "usr/lib64", "usr/libx32",
	"usr/share/qemu", "usr/share/seabios",
}

// Root makes dir the root of the monitor's container: nothing but the host's own
// links (/lib -> usr/lib) and mount points, which crun creates. Nothing of the
// image is in it, so nothing in the image can stand in QEMU's way. It returns the
// mounts to be made.
func Root(dir, hostRoot, config, firmware, qemu, insideQEMU string) ([]specs.Mount, error) {
	mounts, err := hostMounts(dir, hostRoot)
	if err != nil {
		return nil, fmt.Errorf("making the VMM's root: %w", err)
	}
	return append(mounts,
		specs.Mount{Destination: InsideTemp, Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "nodev", "mode=0700"}},
		ReadOnlyBind(firmware, InsideFirmware), ReadOnlyBind(config, InsideConfig),
		ReadOnlyBind(qemu, insideQEMU)), nil // QEMU looks for its files relative to itself
}

// hostMounts links or mounts each of hostDirs that the host has.
func hostMounts(dir, hostRoot string) ([]specs.Mount, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var mounts []specs.Mount
	for _, name := range hostDirs {
		host := filepath.Join(hostRoot, name)
		info, err := os.Lstat(host)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return nil, err
		case info.IsDir():
			mounts = append(mounts, ReadOnlyBind(host, "/"+name))
		case info.Mode()&fs.ModeSymlink != 0:
			if err := copyLink(host, filepath.Join(dir, name)); err != nil {
				return nil, err
			}
		}
	}
	return mounts, nil
}

func copyLink(from, to string) error {
	target, err := os.Readlink(from)
	if err != nil {
		return err
	}
	if have, err := os.Readlink(to); err == nil && have == target {
		return nil // a restart
	}
	return os.Symlink(target, to)
}

// ReadOnlyBind shows the container something of the host's.
func ReadOnlyBind(from, to string) specs.Mount {
	return specs.Mount{Destination: to, Type: "bind", Source: from,
		Options: []string{"rbind", "rprivate", "ro", "nosuid", "nodev"}}
}

// ociVersion is what every crun since Debian 12's understands. Podman 5 writes
// a later one, of which nothing is used here.
const ociVersion = "1.0.2"

// Least limits for the VMM: QEMU's own code, its translation cache of 256 MiB,
// the memory files of kernel and initrd; threads of QEMU and of the VMM.
const (
	vmmMemoryBytes = 512 << 20
	vmmThreads     = 128
)

// Judge takes what has no effect out of s, the container that Podman asked
// for, and returns what the user should know.
func Judge(s *crun.Spec, shape *krun.TEEConfig, interactive bool) (warnings []string, err error) {
	if s.Process == nil || s.Linux == nil {
		return nil, errors.New("container has no process or linux section")
	}
	m := crun.Machine{Spec: s, MemoryBytes: int64(shape.MemoryMiB)<<20 + vmmMemoryBytes, Threads: vmmThreads, Interactive: interactive}
	return m.Judge(crun.QEMU)
}

// Rewrite turns s into the container of a VMM, started by args, that has the
// image's root at InsideImage, and is itself rooted in rootDir, which is empty but
// for mount points. mounts are what of the host the VMM sees.
func Rewrite(s *crun.Spec, rootDir string, mounts []specs.Mount, args []string) error {
	image := specs.Mount{Destination: InsideImage, Type: "bind", Source: s.RootFS,
		Options: []string{"rbind", "rprivate", "nosuid", "nodev", accessOption(s.Root.Readonly)}}
	for _, member := range []struct {
		value any
		path  []string
	}{
		{ociVersion, []string{"ociVersion"}},
		{specs.Root{Path: rootDir, Readonly: true}, []string{"root"}},
		{slices.Concat(s.Mounts, mounts, []specs.Mount{image}), []string{"mounts"}},
		{args, []string{"process", "args"}},
		{environment(s.Process.Env), []string{"process", "env"}},
	} {
		if err := s.Set(member.value, member.path...); err != nil {
			return err
		}
	}
	return nil
}

func accessOption(readOnly bool) string {
	if readOnly {
		return "ro"
	}
	return "rw"
}

// environment is the VMM's: nothing of the image's.
func environment(of []string) []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, e := range of {
		if strings.HasPrefix(e, "TERM=") || strings.HasPrefix(e, "HOSTNAME=") {
			env = append(env, e)
		}
	}
	return env
}
