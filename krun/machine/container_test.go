package machine

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite golden files")

// podmanSpec is what Podman 4.3.1 wrote for `podman create --network none
// --memory 64m --pids-limit 10 --user 1000:1000 -e SECRET=hidden -v
// /tmp:/data:shared --annotation run.oci.handler=krun` (seccomp shortened).
func podmanSpec(t *testing.T) *crun.Spec {
	t.Helper()
	s, err := crun.Command{Config: filepath.Join("testdata", "podman-4.3.1.json")}.Open()
	if err != nil {
		t.Fatal(err)
	}
	// As Podman sets by itself; the recording machine allowed less.
	set(t, s, []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Hard: 1 << 20, Soft: 1 << 20}}, "process", "rlimits")
	return s
}

func set(t *testing.T, s *crun.Spec, value any, path ...string) {
	t.Helper()
	if err := s.Set(value, path...); err != nil {
		t.Fatal(err)
	}
}

// rewritten judges and rewrites s for a machine of 512 MiB.
func rewritten(t *testing.T, s *crun.Spec) (warnings []string) {
	t.Helper()
	warnings, err := Judge(s, &krun.TEEConfig{MemoryMiB: 512}, false)
	if err == nil {
		err = Rewrite(s, "/bundle/ccrun-root", []specs.Mount{ReadOnlyBind("/usr", "/usr")}, []string{"/.ccrun/ccrun-sim", "vmm", "--config", InsideConfig})
	}
	if err != nil {
		t.Fatal(err)
	}
	return warnings
}

func TestRewriteGolden(t *testing.T) {
	s := podmanSpec(t)
	warnings := rewritten(t, s)
	raw, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	got := indented.Bytes()
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
	for _, w := range []string{`"SECRET"`, "/data", "memory limit raised from 64 to 1024 MiB", "--user", "run.oci.handler", "processes raised"} {
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
	rewritten(t, s)
	if s.Linux.RootfsPropagation != "" {
		t.Errorf("propagation %q: mounts of the host's /usr could reach the bundle", s.Linux.RootfsPropagation)
	}
	if _, ok := s.Annotations["run.oci.handler"]; ok {
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
		set(t, s, readOnly, "root", "readonly")
		rewritten(t, s)
		m := s.Mounts[len(s.Mounts)-1]
		if m.Destination != InsideImage || !slices.Contains(m.Options, want) {
			t.Errorf("image mount %+v, expected %s", m, want)
		}
	}
}

// TestJudge drives the runtime by the table: arguments and --env are rows with
// another verdict than krun's.
func TestJudge(t *testing.T) {
	shape := &krun.TEEConfig{MemoryMiB: 512}
	s := podmanSpec(t)
	set(t, s, []string{"sh"}, "process", "args")
	if _, err := Judge(s, shape, false); err == nil || !strings.Contains(err.Error(), "measured identity") || hint.Of(err) == "" {
		t.Errorf("arguments: %v", err)
	}
	for _, path := range []string{"process", "linux"} {
		s := podmanSpec(t)
		set(t, s, nil, path)
		if _, err := Judge(s, shape, false); err == nil {
			t.Errorf("accepted without %s", path)
		}
	}
}
