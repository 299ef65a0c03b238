package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
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
	if b.network == nil {
		return nil
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
	if !b.network.dns.IsValid() {
		return nil
	}
	return os.WriteFile("/etc/resolv.conf", resolvConf(b.network), 0o644)
}

func resolvConf(n *network) []byte { return []byte("nameserver " + n.dns.String() + "\n") }

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

func (n *netlink) setUp(name string) error {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	msg := ifInfo(int32(dev.Index), unix.IFF_UP, unix.IFF_UP)
	if err := n.do(unix.RTM_NEWLINK, 0, msg); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
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
