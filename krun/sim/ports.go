package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/krun"
)

// Port is one on which the workload listens.
type Port struct {
	Number   uint16 `json:"number"`
	Protocol string `json:"protocol"` // "tcp" or "udp"
}

func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Protocol) }

func (p Port) validate() error {
	if p.Number == 0 || (p.Protocol != "tcp" && p.Protocol != "udp") {
		return fmt.Errorf("port %q: expected NUMBER/tcp or NUMBER/udp", p)
	}
	return nil
}

// maxPorts bounds the annotation; every port is a socket of QEMU's.
const maxPorts = 64

// ParsePorts reads the value of krun.LabelPorts: numbers, each with /tcp or
// /udp, separated by commas or, because podman's --annotation cuts at commas,
// by spaces. The empty string is no ports.
func ParsePorts(s string) ([]Port, error) {
	if len(s) > maxPorts*len("65535/tcp, ") {
		return nil, fmt.Errorf("annotation %s of %d bytes: at most %d ports", krun.LabelPorts, len(s), maxPorts)
	}
	var ports []Port
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }) {
		p, err := parsePort(f)
		switch {
		case err != nil:
			return nil, fmt.Errorf("annotation %s: %w", krun.LabelPorts, err)
		case slices.Contains(ports, p):
			return nil, fmt.Errorf("annotation %s: %s appears twice", krun.LabelPorts, p)
		case len(ports) == maxPorts:
			return nil, fmt.Errorf("annotation %s: more than %d ports", krun.LabelPorts, maxPorts)
		}
		ports = append(ports, p)
	}
	return ports, nil
}

func parsePort(s string) (Port, error) {
	number, protocol, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	p := Port{Number: uint16(n), Protocol: protocol}
	if err != nil || p.validate() != nil || p.String() != s {
		return Port{}, fmt.Errorf("port %q: expected NUMBER/tcp or NUMBER/udp", s)
	}
	return p, nil
}
