package krun

import (
	"fmt"
	"net/netip"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// NetworkMode is how a workload reaches others.
type NetworkMode string

// Modes. The guest agent always reaches the attestation server, before the
// workload starts.
const (
	// NetworkTSI: libkrun's, without a network device. The VMM makes the guest's
	// connections, those to 127.0.0.1 too, and opens its listeners in the
	// container's network namespace.
	NetworkTSI NetworkMode = "tsi"
	// NetworkVirtio: a network device of the machine's.
	NetworkVirtio NetworkMode = "virtio"
	// NetworkNone: none, but a loopback inside the guest.
	NetworkNone NetworkMode = "none"
)

// Network is the image's say in its workload's network; it is measured. The
// zero value is the machine's own network, without names.
type Network struct {
	Mode NetworkMode `json:"mode,omitempty"` // empty: DefaultNetwork
	// DNS are the addresses of name servers, for agent and workload, in
	// netip.Addr's own form. None: names do not resolve under libkrun.
	DNS []string `json:"dns,omitempty"`
}

// maxDNS is MAXNS of resolv.conf(5).
const maxDNS = 3

// DefaultNetwork is what a machine for tee has.
func DefaultNetwork(tee kbs.TEE) NetworkMode {
	if tee == kbs.Sample {
		return NetworkVirtio
	}
	return NetworkTSI
}

// VMMQEMU is the VMM of machines that QEMU runs.
const VMMQEMU = "qemu"

// networkOf is what a machine of vmm for tee has.
func networkOf(vmm string, tee kbs.TEE) NetworkMode {
	if vmm == VMMQEMU {
		return NetworkVirtio
	}
	return DefaultNetwork(tee)
}

// ModeFor is n's mode on libkrun's machine for tee, or the simulator's. The nil
// Network has its default.
func (n *Network) ModeFor(tee kbs.TEE) NetworkMode { return n.or(DefaultNetwork(tee)) }

func (n *Network) or(machines NetworkMode) NetworkMode {
	if n == nil || n.Mode == "" {
		return machines
	}
	return n.Mode
}

// Resolvers are n's name servers; the nil Network has none.
func (n *Network) Resolvers() []string {
	if n == nil {
		return nil
	}
	return n.DNS
}

// Validate refuses what libkrun's machine for tee, or the simulator's, does not
// have.
func (n *Network) Validate(tee kbs.TEE) error { return n.ValidateOn("", tee) }

// ValidateOn refuses what a machine of vmm for tee does not have.
func (n *Network) ValidateOn(vmm string, tee kbs.TEE) error {
	if n == nil {
		return nil
	}
	machines := networkOf(vmm, tee)
	if m := n.or(machines); m != NetworkNone && m != machines {
		return fmt.Errorf("network %q on a machine for TEE %s, expected %s or %s", n.Mode, tee, machines, NetworkNone)
	}
	if len(n.DNS) > maxDNS {
		return fmt.Errorf("%d name servers, at most %d allowed", len(n.DNS), maxDNS)
	}
	for _, s := range n.DNS {
		if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" || a.String() != s || a.IsUnspecified() {
			return fmt.Errorf("name server %q: expected an IP address", s)
		}
	}
	return nil
}
