package guest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ccrun/ccrun/bounded"
)

// maxCommandLine is COMMAND_LINE_SIZE on x86, twice.
const maxCommandLine = 4096

// options are the agent's own words on the kernel command line. They are
// measured: libkrun's kernels have theirs built in, and the simulated TEE
// measures it with the kernel.
type options struct {
	debug   bool     // ccrun.debug
	network *network // ccrun.net=ADDRESS/PREFIX,GATEWAY,DNS
}

// network is a static configuration. Gateway and DNS may be left out.
type network struct {
	address netip.Prefix
	gateway netip.Addr
	dns     netip.Addr
}

// parseCommandLine reads the words that start with "ccrun."; an unknown one
// is an error, because it was meant to do something.
func parseCommandLine(line string) (options, error) {
	var o options
	if len(line) > maxCommandLine {
		return o, fmt.Errorf("command line of %d bytes, at most %d allowed", len(line), maxCommandLine)
	}
	for _, word := range strings.Fields(line) {
		if !strings.HasPrefix(word, "ccrun.") {
			continue
		}
		name, value, _ := strings.Cut(word, "=")
		switch {
		case word == "ccrun.debug":
			o.debug = true
		case name == "ccrun.net" && o.network == nil:
			n, err := parseNetwork(value)
			if err != nil {
				return options{}, err
			}
			o.network = n
		case name == "ccrun.net":
			return options{}, errors.New("ccrun.net given twice")
		default:
			return options{}, fmt.Errorf("unknown option %q, expected ccrun.debug or ccrun.net=", word)
		}
	}
	return o, nil
}

func parseNetwork(value string) (*network, error) {
	fields := strings.Split(value, ",")
	if len(fields) != 3 {
		return nil, fmt.Errorf("ccrun.net=%q: expected ADDRESS/PREFIX,GATEWAY,DNS", value)
	}
	var n network
	var err error
	if n.address, err = netip.ParsePrefix(fields[0]); err != nil {
		return nil, fmt.Errorf("ccrun.net: address: %w", err)
	}
	if n.gateway, err = parseOptionalAddr(fields[1]); err != nil {
		return nil, fmt.Errorf("ccrun.net: gateway: %w", err)
	}
	if n.dns, err = parseOptionalAddr(fields[2]); err != nil {
		return nil, fmt.Errorf("ccrun.net: DNS server: %w", err)
	}
	if n.gateway.IsValid() && n.gateway.Is4() != n.address.Addr().Is4() {
		return nil, fmt.Errorf("ccrun.net: gateway %s is not of address %s's family", n.gateway, n.address)
	}
	return &n, nil
}

// parseOptionalAddr refuses zones: they end up in resolv.conf.
func parseOptionalAddr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err == nil && a.Zone() != "" {
		err = fmt.Errorf("address %q has a zone", s)
	}
	return a, err
}

func (b *boot) readCommandLine(context.Context) error {
	line, err := bounded.File("/proc/cmdline", maxCommandLine)
	if err != nil {
		return err
	}
	if b.options, err = parseCommandLine(string(line)); err != nil {
		return err
	}
	b.network, b.console.debug = b.options.network, b.options.debug
	return nil
}
