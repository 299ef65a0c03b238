package workload

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
)

// TestRepeatedPush makes the layer twice of a source that is larger than what a
// spool keeps when it is read for the last time.
func TestRepeatedPush(t *testing.T) {
	t.Parallel()
	m, _ := imagetest.Big(t, 20<<20)
	source := t.TempDir()
	m.WriteLayout(t, source)
	h := &imagetest.Hostile{Method: http.MethodPatch, Act: func(_ http.ResponseWriter, r *http.Request, n int) bool {
		if n == 1 {
			_, _ = io.CopyN(io.Discard, r.Body, 18<<20)
			panic(http.ErrAbortHandler)
		}
		return false
	}}
	server := &fakeServer{}
	o := testOptions(t, server)
	o.SizeBytes, o.Source = 32<<20, "oci:"+source
	o.Destination = "docker://" + imagetest.Registry(t, o.System, h.Front) + "/app:1"
	if _, err := Build(registry.WithPatience(t.Context(), registry.Patience{Delay: 10 * time.Millisecond}), o); err != nil {
		t.Fatal(err)
	}
	imagetest.Empty(t, o.TempDir)
	plain := readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey)
	imagetest.Tool(t, "e2fsck", "-fn", plain)
	got := filepath.Join(t.TempDir(), "data")
	imagetest.Tool(t, "debugfs", "-R", "dump /data "+got, plain)
	if b, err := os.ReadFile(got); err != nil || digest.FromBytes(b) != m.Data(t) {
		t.Errorf("/data is not what the source has (%v)", err)
	}
}
