// Package tests holds the tests that need more than Go: Podman, QEMU,
// cryptsetup. `make test` runs them; `go test ./...` skips them by name.
package tests

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/ccrun/ccrun/"

// forbidden says what a binary must not link, and why.
var forbidden = []struct {
	binary, pkg, why string
}{
	{"ccrun", module + "attest-server/sample", "a production tool must not reach the simulated TEE"},
	{"ccrun", module + "krun/sim", "a production tool must not reach the simulated TEE"},
	{"ccrun-init", module + "attest-server/sample", "the measured agent must not reach the simulated TEE"},
	{"ccrun-init", module + "krun/sim", "the measured agent must not reach the simulated TEE"},
	{"ccrun-init", "github.com/containers/", "the agent must stay small: libkrun allows 6 MiB of initrd"},
	{"ccrun-init", "github.com/urfave/cli", "the agent must stay small"},
	{"ccrun-init", "cel.dev/", "the agent judges nothing: expressions are the server's"},
	{"ccrun-init", "os/exec", "the agent runs no outside program: the workload is its own child stage"},
	{"attest-server", module + "attest-server/sample", "no production binary trusts the simulated root"},
	{"attest-server", module + "krun", "the trusted side stays small"},
	{"attest-server", module + "luks", "the trusted side stays small"},
	{"attest-server", module + "workload", "the trusted side stays small"},
	{"attest-server", "github.com/containers/", "the trusted side stays small"},
}

func TestForbiddenImports(t *testing.T) {
	deps := map[string][]string{}
	for _, f := range forbidden {
		if deps[f.binary] == nil {
			deps[f.binary] = listDeps(t, f.binary)
		}
		for _, d := range deps[f.binary] {
			if d == f.pkg || strings.HasPrefix(d, strings.TrimSuffix(f.pkg, "/")+"/") {
				t.Errorf("%s links %s: %s", f.binary, d, f.why)
			}
		}
	}
}

func listDeps(t *testing.T, binary string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-tags", "remote,containers_image_openpgp,exclude_graphdriver_btrfs", "../cmd/"+binary)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("listing the packages of %s: %v", binary, err)
	}
	list := strings.Fields(string(out))
	if len(list) < 10 {
		t.Fatalf("%s has only %d packages", binary, len(list))
	}
	return list
}
