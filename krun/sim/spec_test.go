package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite golden files")

// podmanSpec is what Podman 4.3.1 wrote for `podman create --network none
// --memory 64m --pids-limit 10 --user 1000:1000 -e SECRET=hidden -v
// /tmp:/data:shared --annotation run.oci.handler=krun` (seccomp shortened).
func podmanSpec(t *testing.T) *specs.Spec {
	t.Helper()
	s, err := readSpec(filepath.Join("testdata", "podman-4.3.1.json"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testPlan() plan {
	return plan{rootDir: "/bundle/ccrun-root", mounts: []specs.Mount{readOnlyBind("/usr", "/usr")}, memoryBytes: 1 << 30}
}

func TestRewriteGolden(t *testing.T) {
	s := podmanSpec(t)
	warnings, err := testPlan().rewrite(s)
	if err != nil {
		t.Fatal(err)
	}
	path, err := writeSpec(filepath.Join(t.TempDir(), "spec.json"), s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "vm-4.3.1.golden.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("rewritten spec differs from %s; see with -update and git diff", golden)
	}
	all := strings.Join(warnings, "\n")
	for _, w := range []string{`"SECRET"`, "/data", "memory limit raised from 64 to 1024 MiB"} {
		if !strings.Contains(all, w) {
			t.Errorf("no warning about %s in:\n%s", w, all)
		}
	}
	if strings.Contains(all+string(got), "hidden") {
		t.Error("the value of an environment variable got into warnings or specification")
	}
}

// The properties below hold whatever the golden file says.
func TestRewriteKeepsTheVMMContained(t *testing.T) {
	s := podmanSpec(t)
	if _, err := testPlan().rewrite(s); err != nil {
		t.Fatal(err)
	}
	if s.Linux.RootfsPropagation != "" {
		t.Errorf("propagation %q: mounts of the host's /usr could reach the bundle", s.Linux.RootfsPropagation)
	}
	if _, ok := s.Annotations[handlerAnnotation]; ok {
		t.Error("handler annotation kept: crun would start a plain container or libkrun")
	}
	if got := s.Process.Capabilities.Bounding; !slices.Equal(got, []string{"CAP_NET_BIND_SERVICE"}) {
		t.Errorf("capabilities %v", got)
	}
	if !s.Process.NoNewPrivileges || !s.Root.Readonly || s.Version != "1.0.2" {
		t.Errorf("new privileges %v, root %+v, version %s", !s.Process.NoNewPrivileges, s.Root, s.Version)
	}
	for _, m := range s.Mounts {
		if m.Destination == "/data" {
			t.Error("a volume of the workload's is mounted into the VMM's container")
		}
		if m.Destination == "/usr" && !slices.Contains(m.Options, "ro") {
			t.Error("the host's /usr is writable")
		}
	}
}

func TestRewriteImageReadOnly(t *testing.T) {
	for readOnly, want := range map[bool]string{true: "ro", false: "rw"} {
		s := podmanSpec(t)
		s.Root.Readonly = readOnly
		if _, err := testPlan().rewrite(s); err != nil {
			t.Fatal(err)
		}
		m := s.Mounts[len(s.Mounts)-1]
		if m.Destination != insideImage || !slices.Contains(m.Options, want) {
			t.Errorf("image mount %+v, expected %s", m, want)
		}
	}
}

func TestRewriteRefusesArguments(t *testing.T) {
	for _, c := range []struct {
		args []string
		ok   bool
	}{
		{[]string{"/entrypoint"}, true},
		{[]string{"/dev/init", "--", "/entrypoint"}, true},
		{[]string{"/run/podman-init", "--", "/entrypoint"}, true},
		{[]string{"/entrypoint", "foo"}, false},
		{[]string{"sh"}, false},
		{[]string{"/dev/init", "--"}, false},
		{nil, false},
	} {
		s := podmanSpec(t)
		s.Process.Args = c.args
		_, err := testPlan().rewrite(s)
		var refused argsError
		if (err == nil) != c.ok || (err != nil && !errors.As(err, &refused)) {
			t.Errorf("args %q: %v", c.args, err)
		}
	}
	if _, err := testPlan().rewrite(&specs.Spec{}); err == nil {
		t.Error("empty specification accepted")
	}
}

func TestRaiseLimitsLeavesEnoughAlone(t *testing.T) {
	s := podmanSpec(t)
	big, swap := int64(4<<30), int64(-1)
	s.Linux.Resources.Memory.Limit, s.Linux.Resources.Memory.Swap = &big, &swap
	if w := testPlan().raiseLimits(s.Linux); len(w) != 0 || *s.Linux.Resources.Memory.Limit != big {
		t.Errorf("limit %d, warnings %v", *s.Linux.Resources.Memory.Limit, w)
	}
	small := int64(64 << 20)
	s.Linux.Resources.Memory.Limit = &small
	if testPlan().raiseLimits(s.Linux); *s.Linux.Resources.Memory.Swap != -1 {
		t.Error("unlimited swap was limited")
	}
}

func TestReadSpecRefusesNonsense(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSpec(path); err == nil {
		t.Error("truncated specification accepted")
	}
	var syntax *json.SyntaxError
	if _, err := readSpec(path + "x"); err == nil || errors.As(err, &syntax) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing specification: %v", err)
	}
}
