package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// setUpNetwork brings lo up and, where the measured command line says so, the
// first ethernet device. Under libkrun's TSI there is nothing more to do.
func (b *boot) setUpNetwork(ctx context.Context) error {
	if err := os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644); err != nil {
		return err
	}
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	if err := nl.setUp("lo"); err != nil {
		return err
	}
	if err := b.writeResolvers(); err != nil {
		return err
	}
	if b.network == nil {
		return nl.dressDummy()
	}
	var name string
	if err := waitFor(ctx, deviceTimeout, func() error {
		name, err = ethernetDevice("/sys/class/net")
		return err
	}); err != nil {
		return hint.With(err, "ccrun.net is set, so the VM needs a network device; check the runtime's network option")
	}
	if err := nl.configure(name, b.network); err != nil {
		return fmt.Errorf("configuring %s: %w", name, err)
	}
	return nil
}

// writeResolvers is for the agent's own names.
func (b *boot) writeResolvers() error {
	text := b.resolvConf()
	if text == "" {
		return nil
	}
	return os.WriteFile("/etc/resolv.conf", []byte(text), 0o644)
}

// resolvConf names the identity's name servers, else the command line's;
// empty: none.
func (b *boot) resolvConf() string {
	servers := b.identity.Network.Resolvers()
	if len(servers) == 0 && b.network != nil && b.network.dns.IsValid() {
		servers = []string{b.network.dns.String()}
	}
	var text strings.Builder
	for _, s := range servers {
		text.WriteString("nameserver " + s + "\n")
	}
	return text.String()
}

// dressDummy gives dummy0 of libkrunfw's kernels the address that libkrun's own
// init gives it since 1.18.1: without any interface but lo, programs that look
// for one believe to be offline. Nothing is ever sent there.
func (n *netlink) dressDummy() error {
	if _, err := net.InterfaceByName(dummyDevice); err != nil {
		return nil
	}
	if err := n.setUp(dummyDevice); err != nil {
		return err
	}
	return n.addAddress(dummyDevice, &network{address: netip.MustParsePrefix("10.0.0.1/8")})
}

const dummyDevice = "dummy0"

// hijack is the switch of libkrun's TSI (libkrunfw's patches to net/socket.c):
// sockets made while it is off are the guest's own.
const hijack = "/sys/module/kernel/parameters/tsi_hijack"

// cutOff says whether the workload has no network.
func (b *boot) cutOff() bool { return b.identity.NetworkMode() == krun.NetworkNone }

// cutNetwork leaves a workload that needs no network with the guest's own
// loopback. Under TSI even what a program sends to 127.0.0.1 would go through
// the VMM, and its listeners would be bound on the host.
func (b *boot) cutNetwork(context.Context) error {
	if !b.cutOff() {
		return nil
	}
	if err := switchOff(hijack); err != nil {
		return fmt.Errorf("turning TSI off: %w", err)
	}
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	devices, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, dev := range devices {
		if dev.Flags&net.FlagLoopback != 0 {
			continue
		}
		if err := nl.setDown(dev.Name); err != nil {
			return err
		}
	}
	return onlyLoopback()
}

// switchOff turns a boolean parameter off, which the kernel shows as N. A kernel
// without TSI has no such parameter.
func switchOff(path string) error { return sysctl{path, "N"}.apply() }

func onlyLoopback() error {
	devices, err := net.Interfaces()
	if err != nil {
		return err
	}
	for _, dev := range devices {
		if dev.Flags&net.FlagLoopback == 0 && dev.Flags&net.FlagUp != 0 {
			return fmt.Errorf("%s is still up", dev.Name)
		}
	}
	return nil
}

// ethernetDevice is the first interface of ARPHRD_ETHER in sysfs that is a
// device's: libkrunfw's kernels also have a dummy0 of that type.
func ethernetDevice(class string) (string, error) {
	entries, err := os.ReadDir(class) // sorted by name
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		kind, err := bounded.File(filepath.Join(class, e.Name(), "type"), 16)
		if _, missing := os.Stat(filepath.Join(class, e.Name(), "device")); missing != nil {
			continue
		}
		if err == nil && strings.TrimSpace(string(kind)) == "1" {
			return e.Name(), nil
		}
	}
	return "", errors.New("no ethernet device")
}

func (n *netlink) configure(name string, c *network) error {
	if err := n.setUp(name); err != nil {
		return err
	}
	if err := n.addAddress(name, c); err != nil {
		return err
	}
	if !c.gateway.IsValid() {
		return nil
	}
	return n.addDefaultRoute(name, c)
}

func (n *netlink) setUp(name string) error   { return n.setFlags(name, unix.IFF_UP) }
func (n *netlink) setDown(name string) error { return n.setFlags(name, 0) }

// setFlags brings a device up (IFF_UP) or down (0).
func (n *netlink) setFlags(name string, flags uint32) error {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	if err := n.do(unix.RTM_NEWLINK, 0, ifInfo(int32(dev.Index), flags, unix.IFF_UP)); err != nil {
		return fmt.Errorf("bringing %s up or down: %w", name, err)
	}
	return nil
}

func (n *netlink) addAddress(name string, c *network) error {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	addr := c.address.Addr()
	msg := []byte{family(addr), byte(c.address.Bits()), 0, unix.RT_SCOPE_UNIVERSE}
	msg = native32(msg, uint32(dev.Index))
	if addr.Is6() {
		// No duplicate address detection: the connection to the server starts now.
		msg[2] = unix.IFA_F_NODAD
	}
	msg = attribute(msg, unix.IFA_LOCAL, addr.AsSlice())
	msg = attribute(msg, unix.IFA_ADDRESS, addr.AsSlice())
	if err := n.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg); err != nil {
		return fmt.Errorf("adding address %s: %w", c.address, err)
	}
	return nil
}

func (n *netlink) addDefaultRoute(name string, c *network) error {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	msg := []byte{family(c.gateway), 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST, 0, 0, 0, 0}
	msg = attribute(msg, unix.RTA_GATEWAY, c.gateway.AsSlice())
	msg = attribute(msg, unix.RTA_OIF, native32(nil, uint32(dev.Index)))
	if err := n.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, msg); err != nil {
		return fmt.Errorf("adding default route via %s: %w", c.gateway, err)
	}
	return nil
}
