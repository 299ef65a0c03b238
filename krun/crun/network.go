package crun

import (
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hostNetwork: libkrun's TSI has the VMM make the guest's connections and bind
// its listeners, those of 127.0.0.1 too, in the container's network namespace.
// In the host's, every program there could talk to the workload's own loopback,
// and the workload to the host's.
func hostNetwork(m *Machine) []string {
	var spaces []specs.LinuxNamespace
	if m.Linux != nil {
		spaces = m.Linux.Namespaces
	}
	i := slices.IndexFunc(spaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	return one(i < 0 || isHostNetwork(spaces[i].Path), "with --network host, what the workload keeps on its loopback would be on the host's own loopback")
}

// isHostNetwork says whether path names the host's network namespace. That of a
// pod made with --network host is joined as its infra container's, below /proc,
// and is Podman's own, in which this runtime is, too. Process 1 cannot be looked
// at without root.
func isHostNetwork(path string) bool {
	if path == "" {
		return false // a new one
	}
	joined, err := os.Stat(path)
	if err != nil {
		return !os.IsNotExist(err) // one that is not there is crun's to complain about
	}
	if host, err := os.Stat("/proc/1/ns/net"); err == nil && os.SameFile(joined, host) {
		return true
	}
	own, err := os.Stat("/proc/self/ns/net")
	return under(filepath.Clean(path), "/proc") && (err != nil || os.SameFile(joined, own))
}
