package process

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ParseStopSignal reads an image's StopSignal: "SIGTERM", "TERM", "15",
// "SIGRTMIN+3". Empty means SIGTERM.
func ParseStopSignal(s string) (unix.Signal, error) {
	if s == "" {
		return unix.SIGTERM, nil
	}
	name := strings.ToUpper(s)
	if n, err := strconv.ParseUint(name, 10, 8); err == nil && n >= 1 && n <= 64 {
		return unix.Signal(n), nil
	}
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	const rtmin, rtmax = 34, 64 // as glibc counts
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMIN"); ok {
		if rest == "" {
			return rtmin, nil
		}
		if n, err := strconv.ParseUint(strings.TrimPrefix(rest, "+"), 10, 8); err == nil && rest[0] == '+' && rtmin+n <= rtmax {
			return unix.Signal(rtmin + n), nil
		}
	}
	if rest, ok := strings.CutPrefix(name, "SIGRTMAX"); ok {
		if rest == "" {
			return rtmax, nil
		}
		if n, err := strconv.ParseUint(strings.TrimPrefix(rest, "-"), 10, 8); err == nil && rest[0] == '-' && rtmax-n >= rtmin && n <= rtmax {
			return unix.Signal(rtmax - n), nil
		}
	}
	return 0, fmt.Errorf("stop signal %q: expected a name such as SIGTERM or a number from 1 to 64", s)
}
