package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// netlink is an rtnetlink socket for the three requests a static interface
// needs (rtnetlink(7)); a full library would be larger than the agent.
type netlink struct {
	fd  int
	seq uint32
}

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening rtnetlink: %w", err)
	}
	return &netlink{fd: fd}, nil
}

func (n *netlink) close() { _ = unix.Close(n.fd) }

// do sends one request and waits for its acknowledgement.
func (n *netlink) do(kind, flags uint16, body []byte) error {
	n.seq++
	msg := native32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = binary.NativeEndian.AppendUint16(msg, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	msg = native32(native32(msg, n.seq), 0)
	msg = append(msg, body...)
	if err := unix.Sendto(n.fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for {
		got, _, err := unix.Recvfrom(n.fd, buf, 0)
		if err != nil {
			return err
		}
		done, err := acknowledged(buf[:got], n.seq)
		if done || err != nil {
			return err
		}
	}
}

// acknowledged says whether msg is the kernel's NLMSG_ERROR for request seq,
// and with which error (0 is success).
func acknowledged(msg []byte, seq uint32) (bool, error) {
	if len(msg) < unix.SizeofNlMsghdr+4 {
		return false, errors.New("short rtnetlink answer")
	}
	if binary.NativeEndian.Uint16(msg[4:]) != unix.NLMSG_ERROR || binary.NativeEndian.Uint32(msg[8:]) != seq {
		return false, nil
	}
	if code := int32(binary.NativeEndian.Uint32(msg[unix.SizeofNlMsghdr:])); code != 0 {
		return true, unix.Errno(-code)
	}
	return true, nil
}

// ifInfo is a struct ifinfomsg.
func ifInfo(index int32, flags, change uint32) []byte {
	msg := native32([]byte{unix.AF_UNSPEC, 0, 0, 0}, uint32(index))
	return native32(native32(msg, flags), change)
}

// attribute appends a struct rtattr, padded to 4 bytes.
func attribute(msg []byte, kind uint16, value []byte) []byte {
	msg = binary.NativeEndian.AppendUint16(msg, uint16(unix.SizeofRtAttr+len(value)))
	msg = binary.NativeEndian.AppendUint16(msg, kind)
	msg = append(msg, value...)
	for len(msg)%4 != 0 {
		msg = append(msg, 0)
	}
	return msg
}

func native32(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
