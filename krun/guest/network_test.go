package guest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

func TestNetlinkMessages(t *testing.T) {
	// struct rtattr {u16 len; u16 type} and data, padded to 4 (rtnetlink(7)).
	if got := hex.EncodeToString(attribute(nil, unix.IFA_LOCAL, []byte{10, 0, 2, 15})); got != "080002000a00020f" {
		t.Errorf("attribute %s", got)
	}
	if got := hex.EncodeToString(attribute(nil, 1, []byte{1})); got != "0500010001000000" {
		t.Errorf("padded attribute %s", got)
	}
	if got := hex.EncodeToString(ifInfo(2, unix.IFF_UP, unix.IFF_UP)); got != "00000000020000000100000001000000" {
		t.Errorf("ifinfomsg %s", got)
	}
}

func answer(kind uint16, seq uint32, code int32) []byte {
	b := native32(nil, 36)
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = native32(native32(b, seq), 0)
	return append(native32(b, uint32(code)), make([]byte, 16)...)
}

func TestAcknowledged(t *testing.T) {
	for name, c := range map[string]struct {
		msg  []byte
		done bool
		err  error
	}{
		"success":      {answer(unix.NLMSG_ERROR, 7, 0), true, nil},
		"refused":      {answer(unix.NLMSG_ERROR, 7, -int32(unix.EEXIST)), true, unix.EEXIST},
		"other answer": {answer(unix.NLMSG_ERROR, 6, 0), false, nil},
		"other kind":   {answer(unix.RTM_NEWLINK, 7, 0), false, nil},
	} {
		done, err := acknowledged(c.msg, 7)
		if done != c.done || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", name, done, err)
		}
	}
	for n := range 20 {
		if done, err := acknowledged(bytes.Repeat([]byte{2}, n), 7); done || err == nil {
			t.Errorf("%d bytes: %v, %v", n, done, err)
		}
	}
}

// The kernel itself must understand the framing: an unprivileged process is
// told EPERM for a request that parses, EINVAL or EOPNOTSUPP for garbage.
func TestNetlinkAgainstTheKernel(t *testing.T) {
	n, err := openNetlink()
	if err != nil {
		t.Skipf("no rtnetlink here: %v", err)
	}
	defer n.close()
	err = n.do(unix.RTM_NEWLINK, 0, ifInfo(0x7fffffff, 0, 0))
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ENODEV) {
		t.Errorf("a link that is not there: %v, expected EPERM or ENODEV", err)
	}
}

func TestEthernetDevice(t *testing.T) {
	class := t.TempDir()
	add := func(name, kind string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(class, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(class, name, "type"), []byte(kind), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	add("lo", "772\n")
	if got, err := ethernetDevice(class); err == nil {
		t.Errorf("lo alone: %q", got)
	}
	add("dummy0", "1\n")
	if got, err := ethernetDevice(class); err == nil {
		t.Errorf("an interface without a device: %q", got)
	}
	for _, name := range []string{"eth1", "eth0"} {
		add(name, "1\n")
		if err := os.Mkdir(filepath.Join(class, name, "device"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	add("aaa", "bogus that is much longer than any type")
	if got, err := ethernetDevice(class); err != nil || got != "eth0" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestResolvConf(t *testing.T) {
	line := &network{dns: netip.MustParseAddr("10.0.2.3")}
	for _, c := range []struct {
		measured *krun.Network
		line     *network
		want     string
	}{
		{nil, nil, ""},
		{nil, line, "nameserver 10.0.2.3\n"},
		{nil, &network{}, ""},
		{&krun.Network{DNS: []string{"9.9.9.9", "2620:fe::fe"}}, line, "nameserver 9.9.9.9\nnameserver 2620:fe::fe\n"},
	} {
		b := &boot{network: c.line, identity: &krun.Identity{Network: c.measured}}
		if got := b.resolvConf(); got != c.want {
			t.Errorf("%+v, %+v: %q, expected %q", c.measured, c.line, got, c.want)
		}
	}
}

func TestSwitchOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tsi_hijack")
	if err := switchOff(path); err != nil {
		t.Errorf("a kernel without TSI: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("made a parameter that the kernel does not have")
	}
	if err := os.WriteFile(path, []byte("Y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := switchOff(path); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "N" {
		t.Errorf("%q, %v, expected N, as the kernel has it", got, err)
	}
	// A kernel that takes the write and stays as it is.
	if err := switchOff("/dev/zero"); err == nil {
		t.Error("a switch that stays on counts as off")
	}
}
