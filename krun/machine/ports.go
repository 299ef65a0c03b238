package machine

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

// Validate checks number and protocol.
func (p Port) Validate() error {
	if p.Number == 0 || (p.Protocol != "tcp" && p.Protocol != "udp") {
		return fmt.Errorf("port %q: expected NUMBER/tcp or NUMBER/udp", p)
	}
	return nil
}

// maxPorts bounds what is forwarded; every port is a socket of QEMU's.
const maxPorts = 64

// Forwards is the ports to forward of those that an image lists, each as
// NUMBER/tcp or NUMBER/udp, and what the user should know of the others. A list
// decides nothing, so none of it keeps a machine from starting.
func Forwards(list []string) (ports []Port, warnings []string) {
	var others []string
	for _, f := range list {
		p, err := parsePort(f)
		switch {
		case err == nil && slices.Contains(ports, p):
		case err == nil && len(ports) < maxPorts:
			ports = append(ports, p)
		default:
			others = append(others, fmt.Sprintf("%.40q", f))
		}
	}
	if n := len(others); n > 0 {
		warnings = append(warnings, fmt.Sprintf("%d ports are not forwarded, as at most %d can be, of tcp and udp: %s",
			n, maxPorts, strings.Join(others[:min(n, 8)], ", ")))
	}
	return ports, warnings
}

// maxAnnotation bounds the value of krun.LabelPorts.
const maxAnnotation = krun.MaxHintsBytes

// SplitPorts reads the value of krun.LabelPorts: separated by commas or,
// because podman's --annotation cuts at commas, by spaces.
func SplitPorts(s string) []string {
	return strings.FieldsFunc(s[:min(len(s), maxAnnotation)], func(r rune) bool { return r == ',' || r == ' ' })
}

func parsePort(s string) (Port, error) {
	number, protocol, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	p := Port{Number: uint16(n), Protocol: protocol}
	if err != nil || p.Validate() != nil || p.String() != s {
		return Port{}, fmt.Errorf("port %.40q: expected NUMBER/tcp or NUMBER/udp", s)
	}
	return p, nil
}
