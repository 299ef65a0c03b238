package krun

import (
	"fmt"
	"regexp"
	"strconv"
	"sync"
)

// StatusDenied is the exit status of a guest whose key a server refused. Units
// stop on it and try again after anything else. It is reserved as 125 to 127
// are (podman-run(1)); a workload should not end with it.
const StatusDenied = 77

// StatusLine is what the guest agent prints last where its machine has no other
// way to report its exit status, which libkrun for TEEs has not.
func StatusLine(status int) string { return fmt.Sprintf("ccrun: exit status %d", status&0xff) }

// StartedLine is what the guest agent prints as soon as the workload runs, on the
// same machines; krun-sim prints it where AnnounceAnnotation asks for it.
const StartedLine = "ccrun: workload started"

// AnnounceAnnotation, "1", has krun-sim print StartedLine. It is given at launch.
const AnnounceAnnotation = "io.ccrun.announce"

// AgentPrefix begins each line in which the guest agent says what it waits for,
// or what failed.
const AgentPrefix = "ccrun-init: "

// Patterns of the agent's lines, which allow for the prefix of libkrun's log. The
// agent itself, which links this, never asks for them, and does not compile them.
var (
	statusLine  = lazily(libkrunLog + `ccrun: exit status (\d{1,3})\r?$`)
	startedLine = lazily(libkrunLog + regexp.QuoteMeta(StartedLine) + `\r?$`)
	agentLine   = lazily(libkrunLog + regexp.QuoteMeta(AgentPrefix) + `(.*?)\r?$`)
)

func lazily(pattern string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(pattern) })
}

const libkrunLog = `^(?:\[[^\]]{1,64} init_or_kernel\] )?`

// ParseStatusLine reads a line of a guest's console, without its end. ok is
// false if it is not a StatusLine.
func ParseStatusLine(line string) (status int, ok bool) {
	m := statusLine().FindStringSubmatch(line)
	if m == nil {
		return 0, false
	}
	status, err := strconv.Atoi(m[1])
	return status, err == nil && status <= 255
}

// IsStartedLine says whether a line of a guest's console, without its end, is
// StartedLine.
func IsStartedLine(line string) bool { return startedLine().MatchString(line) }

// ParseAgentLine is what the guest agent says in a line of its console, without
// its end. Whoever can write there can say the same.
func ParseAgentLine(line string) (text string, ok bool) {
	m := agentLine().FindStringSubmatch(line)
	if m == nil {
		return "", false
	}
	return m[1], true
}
