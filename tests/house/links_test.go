package house

import (
	"slices"
	"testing"
)

// forbidden says what a binary must not link, and why.
var forbidden = []struct {
	binary, pkg, why string
}{
	{"ccrun", module + "/attest-server/sample", "a production tool must not reach the simulated TEE"},
	{"ccrun", module + "/krun/sim", "a production tool must not reach the simulated TEE"},
	{"ccrun-init", module + "/attest-server/sample", "the measured agent must not reach the simulated TEE"},
	{"ccrun-init", module + "/krun/sim", "the measured agent must not reach the simulated TEE"},
	{"ccrun-init", "github.com/containers", "the agent must stay small: libkrun allows 6 MiB of initrd"},
	{"ccrun-init", "github.com/urfave/cli", "the agent must stay small"},
	{"ccrun-init", "cel.dev", "the agent judges nothing: expressions are the server's"},
	{"ccrun-init", "os/exec", "the agent runs no outside program: the workload is its own child stage"},
	{"attest-server", module + "/attest-server/sample", "no production binary trusts the simulated root"},
	{"attest-server", module + "/krun", "the trusted side stays small"},
	{"attest-server", module + "/luks", "the trusted side stays small"},
	{"attest-server", module + "/workload", "the trusted side stays small"},
	{"attest-server", "github.com/containers", "the trusted side stays small"},
}

// TestForbiddenLinks looks at all that a program links, however it gets there.
func TestForbiddenLinks(t *testing.T) {
	all := list(t)
	for _, f := range forbidden {
		i := slices.IndexFunc(all, func(l listed) bool { return l.ImportPath == module+"/cmd/"+f.binary })
		if i < 0 {
			t.Fatalf("there is no cmd/%s", f.binary)
		}
		if len(all[i].Deps) < 10 {
			t.Fatalf("%s has only %d packages", f.binary, len(all[i].Deps))
		}
		for _, d := range all[i].Deps {
			if under(d, f.pkg) {
				t.Errorf("%s links %s: %s", f.binary, d, f.why)
			}
		}
	}
}
