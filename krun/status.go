package krun

import (
	"fmt"
	"regexp"
	"strconv"
)

// StatusDenied is the exit status of a guest whose key a server refused. Units
// stop on it and try again after anything else. It is reserved as 125 to 127
// are (podman-run(1)); a workload should not end with it.
const StatusDenied = 77

// StatusLine is what the guest agent prints last where its machine has no other
// way to report its exit status, which libkrun for TEEs has not.
func StatusLine(status int) string { return fmt.Sprintf("ccrun: exit status %d", status&0xff) }

// statusLine allows for the prefix of libkrun's log.
var statusLine = regexp.MustCompile(`^(?:\[[^\]]{1,64} init_or_kernel\] )?ccrun: exit status (\d{1,3})\r?$`)

// ParseStatusLine reads a line of a guest's console, without its end. ok is
// false if it is not a StatusLine.
func ParseStatusLine(line string) (status int, ok bool) {
	m := statusLine.FindStringSubmatch(line)
	if m == nil {
		return 0, false
	}
	status, err := strconv.Atoi(m[1])
	return status, err == nil && status <= 255
}
