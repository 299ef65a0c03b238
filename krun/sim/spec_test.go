package sim

import (
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/krun/crun"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// podmanSpec is what Podman 4.3.1 wrote for `podman create --network none
// --memory 64m --pids-limit 10 --user 1000:1000 -e SECRET=hidden -v
// /tmp:/data:shared --annotation run.oci.handler=krun` (seccomp shortened).
func podmanSpec(t *testing.T) *crun.Spec {
	t.Helper()
	s, err := crun.Command{Config: filepath.Join("..", "machine", "testdata", "podman-4.3.1.json")}.Open()
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
