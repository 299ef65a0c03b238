package krun

import (
	"strings"
	"testing"
)

func TestStatusLine(t *testing.T) {
	for status := range 256 {
		for _, prefix := range []string{"", "[2026-11-30T06:26:18.117380Z ERROR init_or_kernel] "} {
			if got, ok := ParseStatusLine(prefix + StatusLine(status)); !ok || got != status {
				t.Errorf("%q%q: %d, %v", prefix, StatusLine(status), got, ok)
			}
		}
	}
	for _, line := range []string{"", "ccrun: exit status", "ccrun: exit status 256", "ccrun: exit status -1", "ccrun: exit status 7 ", " ccrun: exit status 7",
		"x ccrun: exit status 7", "ccrun: exit status 7\n", "[" + strings.Repeat("x", 100) + " init_or_kernel] ccrun: exit status 7", "ccrun: exit status 0007"} {
		if got, ok := ParseStatusLine(line); ok {
			t.Errorf("%q is taken for status %d", line, got)
		}
	}
}

func TestAgentLines(t *testing.T) {
	const libkrun = "[2026-11-30T06:26:18.117380Z ERROR init_or_kernel] "
	for line, want := range map[string]string{
		AgentPrefix + "asking a; trying again": "asking a; trying again", libkrun + AgentPrefix + "b\r": "b", AgentPrefix: "",
		"x " + AgentPrefix + "c": "-", "ccrun-init:": "-", "[" + strings.Repeat("x", 100) + " init_or_kernel] " + AgentPrefix: "-", AgentPrefix + "two\nlines": "-",
	} {
		got, ok := ParseAgentLine(line)
		if ok != (want != "-") || ok && got != want {
			t.Errorf("%q: %q, %v", line, got, ok)
		}
	}
	for line, want := range map[string]bool{
		StartedLine: true, libkrun + StartedLine: true, StartedLine + "\r": true,
		"": false, "x" + StartedLine: false, StartedLine + ".": false, StartedLine + "\n": false,
	} {
		if IsStartedLine(line) != want {
			t.Errorf("%q taken for the started line: %v", line, !want)
		}
	}
}
