package crun

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// hostNetwork: libkrun's TSI has the VMM make the guest's connections and bind
// its listeners, those of 127.0.0.1 too, in the container's network namespace.
// In the host's, every program there could talk to the workload's own loopback,
// and the workload to the host's.
func hostNetwork(m *Machine) []string {
	own := m.Linux != nil && slices.ContainsFunc(m.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.NetworkNamespace })
	return one(!own, "with --network host, what the workload keeps on its loopback would be on the host's own loopback")
}
