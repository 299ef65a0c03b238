package crun

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccrun/ccrun/krun"
)

// mountKind is the option that a mount comes from.
type mountKind int

const (
	volume        mountKind = iota
	tmpfs                   // --tmpfs
	secretFile              // --secret
	podmansTmpfs            // --read-only-tmpfs
	subscriptions           // mounts.conf(5)
	reaperFile              // --init
	containers              // the container's own: of the kernel, or written by Podman about it
)

// under says whether d is dir or in it.
func under(d, dir string) bool { return d == dir || strings.HasPrefix(d, dir+"/") }

func kindOf(m specs.Mount) mountKind {
	d := path.Clean(m.Destination)
	switch {
	case d == "/proc", under(d, "/dev"), under(d, "/sys"),
		d == "/etc/resolv.conf", d == "/etc/hosts", d == "/etc/hostname", d == "/etc/passwd", d == "/etc/group", d == "/run/.containerenv":
		return containers
	case m.Type == "tmpfs" && (d == "/tmp" || d == "/run" || d == "/var/tmp"):
		return podmansTmpfs
	case d == "/run/secrets":
		return subscriptions
	case d == "/run/podman-init":
		return reaperFile
	case under(d, "/run/secrets"):
		return secretFile
	case m.Type == "tmpfs":
		return tmpfs
	}
	return volume
}

// volumes names what Podman would lend of the host's, and what to do instead.
func volumes(m *Machine) []string {
	given := mounts(volume)(m)
	for i := range given {
		given[i] += ": `ccrun build --volume NAME:PATH` gives the workload an encrypted volume of its own there"
	}
	return given
}

// mounts names those of a kind.
func mounts(kind mountKind) func(*Machine) []string {
	return func(m *Machine) []string {
		var given []string
		for _, mount := range m.Mounts {
			if kindOf(mount) == kind {
				given = append(given, fmt.Sprintf("mount %s is not visible inside the VM", path.Clean(mount.Destination)))
			}
		}
		return given
	}
}

func dropMounts(kind mountKind) func(*Machine) error {
	return func(m *Machine) error {
		return m.Set(slices.DeleteFunc(m.Mounts, func(mount specs.Mount) bool { return kindOf(mount) == kind }), "mounts")
	}
}

// propagation can be asked for with a volume. Shared, it would carry mounts of
// ours in the container back to the host, where Podman cleans up.
func propagation(m *Machine) []string {
	return one(m.linux().RootfsPropagation != "", "mount propagation has no effect in a VM")
}

// podmansShmSize is what Podman sets without being asked.
const podmansShmSize = "size=65536k"

func shmSize(m *Machine) []string {
	sized := func(mount specs.Mount) bool {
		return path.Clean(mount.Destination) == "/dev/shm" &&
			slices.ContainsFunc(mount.Options, func(o string) bool { return strings.HasPrefix(o, "size=") && o != podmansShmSize })
	}
	return one(slices.ContainsFunc(m.Mounts, sized), "the size of /dev/shm does not reach the workload: --shm-size has no effect")
}

// readOnly reaches the workload: AddScratch gives its disk no room to write in.
func readOnly(m *Machine) []string {
	return one(m.Root.Readonly, "the root is read-only")
}

// closedDisk is given until the disk has a mount of its own.
func closedDisk(m *Machine) []string {
	opened := slices.ContainsFunc(m.Mounts, func(mount specs.Mount) bool { return path.Clean(mount.Destination) == diskPath })
	return one(m.Root.Readonly && !opened, "the disk is in a read-only root")
}

const diskPath = "/" + krun.DiskFile

// openDisk leaves the container read-only, but for the disk, which libkrun
// opens for writing or not at all.
func openDisk(m *Machine) error {
	disk := specs.Mount{Destination: diskPath, Type: "bind", Source: filepath.Join(m.RootFS, krun.DiskFile),
		Options: []string{"bind", "rprivate", "rw", "nosuid", "nodev", "noexec"}}
	return m.Set(append(slices.Clone(m.Mounts), disk), "mounts")
}
