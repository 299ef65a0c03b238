package machine

import (
	"fmt"
	"net/netip"
	"strings"
)

// guestNet is QEMU's user network as the measured command line tells the guest
// of it (ccrun.net=ADDRESS/PREFIX,GATEWAY,DNS), so that firmware of any age
// finds the network it was made for.
type guestNet struct {
	net            netip.Prefix // invalid where the guest configures none
	guest          netip.Addr
	gateway, names netip.Addr // either may be missing
}

// guestNetOf reads the command line. The agent is the judge of its syntax.
func guestNetOf(cmdline string) (n guestNet, err error) {
	for _, word := range strings.Fields(cmdline) {
		value, ok := strings.CutPrefix(word, "ccrun.net=")
		if !ok {
			continue
		}
		address, rest, _ := strings.Cut(value, ",")
		gateway, names, _ := strings.Cut(rest, ",")
		prefix, err := netip.ParsePrefix(address)
		if err != nil {
			return guestNet{}, fmt.Errorf("firmware's command line: %w", err)
		}
		n.net, n.guest = prefix.Masked(), prefix.Addr()
		for text, to := range map[string]*netip.Addr{gateway: &n.gateway, names: &n.names} {
			if text == "" {
				continue
			}
			if *to, err = netip.ParseAddr(text); err != nil {
				return guestNet{}, fmt.Errorf("firmware's command line: %w", err)
			}
		}
	}
	return n, nil
}

// netdev is QEMU's option for the network.
func (n guestNet) netdev() string {
	s := "user,id=net"
	if !n.net.IsValid() {
		return s
	}
	s += ",net=" + n.net.String() + ",dhcpstart=" + n.guest.String()
	if n.gateway.IsValid() {
		s += ",host=" + n.gateway.String()
	}
	if n.names.IsValid() {
		s += ",dns=" + n.names.String()
	}
	return s
}
