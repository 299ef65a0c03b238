package crun

import (
	"strings"
	"testing"
)

// TestHostNetwork: a pod with --network host gives its containers the host's
// network by path.
func TestHostNetwork(t *testing.T) {
	for _, c := range []struct {
		namespaces []map[string]string
		host       bool
	}{
		{[]map[string]string{{"type": "pid"}}, true},
		{[]map[string]string{{"type": "network"}}, false},
		{[]map[string]string{{"type": "network", "path": "/proc/1/ns/net"}}, true},
		{[]map[string]string{{"type": "network", "path": "/proc/self/ns/net"}}, true},          // as a pod's, with --network host
		{[]map[string]string{{"type": "network", "path": "/proc/self/../self/ns/pid"}}, false}, // another; crun refuses it
		{[]map[string]string{{"type": "network", "path": "/nonexistent"}}, false},
		{[]map[string]string{{"type": "network", "path": "/dev/null/x"}}, true}, // who knows
	} {
		m := machine(t)
		if err := m.Set(c.namespaces, "linux", "namespaces"); err != nil {
			t.Fatal(err)
		}
		if got := len(hostNetwork(m)) > 0; got != c.host {
			t.Errorf("%v: the host's: %v, expected %v", c.namespaces, got, c.host)
		}
	}
}

// TestPodsHosts: what Podman writes about a pod is not taken for --add-host.
func TestPodsHosts(t *testing.T) {
	m := machine(t)
	if err := m.Set([]any{map[string]any{"destination": "/etc/hosts", "type": "bind", "source": "testdata/hosts-pod"}}, "mounts"); err != nil {
		t.Fatal(err)
	}
	if got := addedHosts(m); len(got) != 1 || !strings.HasSuffix(got[0], ": db") {
		t.Errorf("added: %q, expected db alone", got)
	}
}
