package destination

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/localstore"
)

func TestParseDestination(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containers/storage needs root or a user namespace")
	}
	t.Setenv("CONTAINERS_STORAGE_CONF", filepath.Join(t.TempDir(), "storage.conf"))
	imagetest.WriteFile(t, os.Getenv("CONTAINERS_STORAGE_CONF"),
		fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", t.TempDir(), t.TempDir()))
	for name, want := range map[string]string{
		"app":                                   "containers-storage:localhost/app:latest",
		"app:2":                                 "containers-storage:localhost/app:2",
		"team/app":                              "containers-storage:localhost/team/app:latest",
		"registry.example/app:1":                "containers-storage:registry.example/app:1",
		"localhost/app":                         "containers-storage:localhost/app:latest",
		"oci:/tmp/y:z":                          "oci:/tmp/y:z",
		"oci:/no/such/dir/y:z":                  "",
		"App":                                   "",
		"docker://UPPER/x":                      "",
		"app@sha256:" + strings.Repeat("0", 64): "",
	} {
		ref, err := parseName(name)
		switch {
		case want == "" && !errors.Is(err, hint.ErrUsage):
			t.Errorf("%q: error %v, expected a usage error", name, err)
		case want != "" && (err != nil || localstore.Name(ref) != want):
			t.Errorf("%q: %v %v, expected %s", name, ref, err, want)
		}
	}
}
