package workload

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/source"
)

// TestDestinations writes to every transport and reads back what it wrote
// with containers/image.
func TestDestinations(t *testing.T) {
	t.Parallel()
	for name, dest := range map[string]func(*testing.T, *Options) string{
		"oci":         func(t *testing.T, _ *Options) string { return "oci:" + t.TempDir() + "/layout:app:1" },
		"oci unnamed": func(t *testing.T, _ *Options) string { return "oci:" + t.TempDir() },
		"oci-archive": func(t *testing.T, _ *Options) string { return "oci-archive:" + t.TempDir() + "/a.tar:app" },
		"docker-archive": func(t *testing.T, _ *Options) string {
			return "docker-archive:" + t.TempDir() + "/a.tar:localhost/app:1"
		},
		"dir": func(t *testing.T, _ *Options) string { return "dir:" + t.TempDir() + "/d" },
		"docker": func(t *testing.T, o *Options) string {
			return "docker://" + imagetest.Registry(t, o.System, nil) + "/ns/app:1"
		},
		"containers-storage": func(t *testing.T, _ *Options) string { return privateStore(t) + "localhost/app:1" },
	} {
		t.Run(name, func(t *testing.T) {
			server := &fakeServer{}
			o := testOptions(t, server)
			o.Destination = dest(t, &o)
			res, err := Build(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			reg := server.the(t)
			out := readOutput(t, o.System, o.Destination)
			imagetest.Tool(t, "e2fsck", "-fn", out.decrypt(t, reg.DiskKey))
			src, err := source.Open(t.Context(), o.Destination, source.Options{System: o.System})
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			if got := src.Digest.String(); got != res.Digest || got != reg.Registration.Image {
				t.Errorf("manifest %s, result says %s, registration %s", got, res.Digest, reg.Registration.Image)
			}
			in, err := Inspect(t.Context(), o.System, o.Destination, server.Get)
			if err != nil || len(in.Problems) != 0 || in.Registered == nil {
				t.Errorf("inspection: %v %v", err, in.Problems)
			}
			imagetest.Empty(t, o.TempDir)
		})
	}
}

// privateStore is a container storage of this test alone.
func privateStore(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers/storage needs root or a user namespace")
	}
	return fmt.Sprintf("containers-storage:[vfs@%s+%s]", t.TempDir(), t.TempDir())
}

// TestStorageToStorage uses a built image as the source of another build: it
// is an image like any other.
func TestStorageToStorage(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	store := privateStore(t)
	o.Destination = store + "localhost/one:1"
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.Source, o.Destination, o.SizeBytes = o.Destination, store+"localhost/two:1", 64<<20
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	two := readOutput(t, o.System, o.Destination)
	for _, r := range server.reqs {
		if r.Registration.WorkloadID == two.labels[krun.LabelWorkloadID] {
			plain := two.decrypt(t, r.DiskKey)
			imagetest.Tool(t, "e2fsck", "-fn", plain)
			if got := imagetest.Tool(t, "debugfs", "-R", "stat /disk.img", plain); !strings.Contains(got, "Size:") {
				t.Errorf("no disk.img in the disk: %s", got)
			}
			return
		}
	}
	t.Fatal("second workload is not registered")
}

// TestExistingDestination: an archive that is there is neither overwritten
// nor added to.
func TestExistingDestination(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"oci-archive", "docker-archive"} {
		o := testOptions(t, &fakeServer{})
		path := filepath.Join(t.TempDir(), "a.tar")
		imagetest.WriteFile(t, path, []byte("mine"))
		o.Destination = transport + ":" + path
		if _, err := Build(t.Context(), o); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: error %v, expected %v", transport, err, os.ErrExist)
		}
		if b, _ := os.ReadFile(path); string(b) != "mine" {
			t.Errorf("%s: file changed", transport)
		}
	}
}

// TestTwoBuildsOneLayout: builds that add to one image layout at once lose
// neither image.
func TestTwoBuildsOneLayout(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	first := testOptions(t, server)
	dir := filepath.Join(t.TempDir(), "layout")
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		o := first
		sys := *first.System
		o.System = &sys
		o.Destination = fmt.Sprintf("oci:%s:app%d", dir, i)
		wg.Go(func() { _, errs[i] = Build(t.Context(), o) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i := range errs {
		readOutput(t, first.System, fmt.Sprintf("oci:%s:app%d", dir, i))
	}
	if len(server.reqs) != len(errs) {
		t.Errorf("%d registrations, expected %d", len(server.reqs), len(errs))
	}
	imagetest.Empty(t, first.TempDir)
}

// TestNameMoves: building to a name again gives it to the new image.
func TestNameMoves(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	var last string
	for range 2 {
		res, err := Build(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		last = res.Registration.WorkloadID
	}
	if out := readOutput(t, o.System, o.Destination); out.labels[krun.LabelWorkloadID] != last {
		t.Error("name still leads to the old image")
	}
}

// TestRollback: a build that cannot publish takes its registration and its
// record back; one that cannot register publishes nothing.
func TestRollback(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	path := filepath.Join(t.TempDir(), "a.tar")
	o.Destination, o.RecordPath = "oci-archive:"+path, filepath.Join(t.TempDir(), "record")
	o.Progress = func(stage string, _, _ int64) {
		if strings.HasPrefix(stage, "encrypting") { // somebody else is faster
			imagetest.WriteFile(t, path, []byte("theirs"))
		}
	}
	if _, err := Build(t.Context(), o); !errors.Is(err, os.ErrExist) {
		t.Fatalf("error %v, expected %v", err, os.ErrExist)
	}
	if len(server.reqs) != 0 || len(server.removed) != 1 || imagetest.Exists(o.RecordPath) {
		t.Errorf("registrations %d, removed %d, record %v", len(server.reqs), len(server.removed), imagetest.Exists(o.RecordPath))
	}
	if b, _ := os.ReadFile(path); string(b) != "theirs" {
		t.Error("their file was overwritten")
	}

	server = &fakeServer{err: &kbs.ProblemError{Problem: kbs.Problem{Status: 409, Code: kbs.CodeDuplicateDigest}}}
	o = testOptions(t, server)
	_, err := Build(t.Context(), o)
	var h interface{ Hint() string }
	if err == nil || !strings.Contains(err.Error(), kbs.CodeDuplicateDigest) || !errors.As(err, &h) {
		t.Fatalf("error %v, expected %s and a hint", err, kbs.CodeDuplicateDigest)
	}
	nothingLeft(t, o, server)
}

func TestTakenWorkloadID(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	o.WorkloadID = "mine"
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.Destination = "oci:" + filepath.Join(t.TempDir(), "x")
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "registered already") {
		t.Fatalf("error %v", err)
	}
	if len(server.removed) != 0 {
		t.Error("the first registration was removed")
	}
}

// TestCancel stops builds at several points.
func TestCancel(t *testing.T) {
	t.Parallel()
	for _, stage := range []string{"reading", "encrypting"} {
		for _, transport := range []string{"oci:", "oci-archive:", "docker-archive:", "dir:"} {
			t.Run(transport+stage, func(t *testing.T) {
				server := &fakeServer{}
				o := testOptions(t, server)
				o.SizeBytes, o.Destination = 8<<20, transport+filepath.Join(t.TempDir(), "out")
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				o.Progress = func(s string, done, _ int64) {
					if strings.HasPrefix(s, stage) && (stage == "reading" || done > 4<<20) {
						cancel()
					}
				}
				if _, err := Build(ctx, o); !errors.Is(err, context.Canceled) {
					t.Fatalf("error %v, expected %v", err, context.Canceled)
				}
				nothingLeft(t, o, server)
			})
		}
	}
}

// TestRegistryFaults: a registry that breaks off, lies or forbids is a
// failure that says so, and nothing is registered.
func TestRegistryFaults(t *testing.T) {
	t.Parallel()
	for name, front := range map[string]func(http.Handler) http.Handler{
		"upload refused": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPatch {
					http.Error(w, "no", http.StatusForbidden)
					return
				}
				h.ServeHTTP(w, r)
			})
		},
		"upload broken off": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPatch {
					_, _ = r.Body.Read(make([]byte, 100000))
					panic(http.ErrAbortHandler)
				}
				h.ServeHTTP(w, r)
			})
		},
		"no manifests": func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
					http.Error(w, "no", http.StatusInternalServerError)
					return
				}
				h.ServeHTTP(w, r)
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := &fakeServer{}
			o := testOptions(t, server)
			o.Destination = "docker://" + imagetest.Registry(t, o.System, front) + "/app:1"
			if _, err := Build(registry.WithPatience(t.Context(), registry.Patience{Retries: 1, Delay: time.Millisecond}), o); err == nil {
				t.Fatal("accepted")
			}
			if len(server.reqs) != 0 {
				t.Error("still registered")
			}
			imagetest.Empty(t, o.TempDir)
		})
	}
}

// TestRegistrySource reads from a registry, and from one that cuts layers
// short.
func TestRegistrySource(t *testing.T) {
	t.Parallel()
	cut := false
	server := &fakeServer{}
	o := testOptions(t, server)
	host := imagetest.Registry(t, o.System, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if cut && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
				w = &cutter{ResponseWriter: w, left: 3000}
			}
			h.ServeHTTP(w, r)
		})
	})
	o.Destination = "docker://" + host + "/app:1"
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	o.Source, o.Destination, o.SizeBytes = o.Destination, "oci:"+filepath.Join(t.TempDir(), "two"), 64<<20
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	cut = true
	o.Destination = "oci:" + filepath.Join(t.TempDir(), "three")
	if _, err := Build(registry.WithPatience(t.Context(), registry.Patience{Retries: 1, Delay: time.Millisecond}), o); err == nil || !strings.Contains(err.Error(), "layer 1") {
		t.Fatalf("error %v, expected one about layer 1", err)
	}
	nothingLeft(t, o, nil)
}

// cutter drops everything after so many bytes, without saying so.
type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) > c.left {
		_, _ = c.ResponseWriter.Write(p[:c.left])
		panic(http.ErrAbortHandler)
	}
	c.left -= len(p)
	return c.ResponseWriter.Write(p)
}
