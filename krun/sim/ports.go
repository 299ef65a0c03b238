package sim

import (
	"fmt"
	"strconv"
	"strings"
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

// ParsePorts reads the value of PortsAnnotation: numbers, each with /tcp or
// /udp, separated by commas. The empty string is no ports.
func ParsePorts(s string) ([]Port, error) {
	if s == "" {
		return nil, nil
	}
	fields := strings.SplitN(s, ",", maxPorts+1)
	if len(fields) > maxPorts {
		return nil, fmt.Errorf("annotation %s: more than %d ports", PortsAnnotation, maxPorts)
	}
	var ports []Port
	seen := map[Port]bool{}
	for _, f := range fields {
		p, err := parsePort(strings.TrimSpace(f))
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", PortsAnnotation, err)
		}
		if seen[p] {
			return nil, fmt.Errorf("annotation %s: %s appears twice", PortsAnnotation, p)
		}
		seen[p] = true
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
