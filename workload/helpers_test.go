package workload

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containers/image/v5/types"
	"github.com/containers/storage/pkg/reexec"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/source"
)

func TestMain(m *testing.M) {
	if reexec.Init() { // containers/storage unpacks layers in a child
		return
	}
	if os.Getenv("CCRUN_TEST_CHILD") != "" {
		killedChild()
		return
	}
	var err error
	if shared, err = os.MkdirTemp("", "ccrun-workload-test-"); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	os.RemoveAll(shared)
	os.Exit(code)
}

// shared is a directory for what tests share.
var shared string

// fakeServer is a Registrar.
type fakeServer struct {
	mu      sync.Mutex
	reqs    map[string]kbs.RegisterRequest
	removed []string
	err     error // of Register
}

func (s *fakeServer) Register(_ context.Context, r kbs.RegisterRequest) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false, s.err
	}
	if s.reqs == nil {
		s.reqs = map[string]kbs.RegisterRequest{}
	}
	r.DiskKey = bytes.Clone(r.DiskKey)
	s.reqs[r.Registration.WorkloadID] = r
	return true, nil
}

func (s *fakeServer) PutAgent(context.Context, []byte) error { return nil }

func (s *fakeServer) Get(_ context.Context, id string) (*kbs.WorkloadStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.reqs[id]; ok {
		return &kbs.WorkloadStatus{Registration: r.Registration}, nil
	}
	return nil, &kbs.ProblemError{Problem: kbs.Problem{Status: 404, Code: kbs.CodeNotFound}}
}

func (s *fakeServer) Revoke(context.Context, string) (*kbs.WorkloadStatus, error) {
	return &kbs.WorkloadStatus{}, nil
}

func (s *fakeServer) Remove(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.reqs, id)
	s.removed = append(s.removed, id)
	return nil
}

// the is the one registration there must be.
func (s *fakeServer) the(t testing.TB) kbs.RegisterRequest {
	t.Helper()
	if len(s.reqs) != 1 {
		t.Fatalf("%d registrations, expected 1", len(s.reqs))
	}
	for _, r := range s.reqs {
		return r
	}
	panic("unreachable")
}

func testFirmware(t testing.TB) string {
	dir := t.TempDir()
	imagetest.WriteFile(t, filepath.Join(dir, "vmlinuz"), bytes.Repeat([]byte("kernel"), 1000))
	imagetest.WriteFile(t, filepath.Join(dir, firmware.ConfigFile),
		imagetest.JSON(t, firmware.Config{Version: 1, Kind: firmware.KindQEMUDirect, Kernel: "vmlinuz", Cmdline: "quiet " + measure.StopsACPI}))
	return dir
}

// testOptions builds the app image from an image layout.
func testOptions(t testing.TB, server *fakeServer) Options {
	t.Helper()
	layout := t.TempDir()
	imagetest.App(t).WriteLayout(t, layout)
	o := Options{
		Environment:    Environment{System: imagetest.System(t), TempDir: t.TempDir()},
		SourceOptions:  SourceOptions{Source: "oci:" + layout},
		MachineOptions: MachineOptions{TEE: kbs.Sample, CPUs: 1, MemoryMiB: 512, Firmware: testFirmware(t), Agent: stub()}, // any static ELF will do
		DiskOptions:    DiskOptions{SizeBytes: 2 << 20, Filesystem: "ext4"},
		PublishOptions: PublishOptions{Destination: "oci:" + filepath.Join(t.TempDir(), "out") + ":app"},
		Servers:        krun.Servers{URLs: []string{"https://192.0.2.1:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
	}
	if server != nil {
		o.Registrar = server
	}
	return o
}

// output is a built image as anyone can read it.
type output struct {
	labels map[string]string
	files  map[string][]byte
	modes  map[string]int64
}

func readOutput(t testing.TB, sys *types.SystemContext, name string) *output {
	t.Helper()
	src, err := source.Open(t.Context(), name, source.Options{System: sys})
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if len(src.Layers) != 1 {
		t.Fatalf("%d layers, expected 1", len(src.Layers))
	}
	rc, err := src.Layers[0].Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := &output{labels: src.Config.Config.Labels, files: map[string][]byte{}, modes: map[string]int64{}}
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out.files[h.Name] = make([]byte, h.Size)
		if _, err := io.ReadFull(tr, out.files[h.Name]); err != nil {
			t.Fatal(err)
		}
		out.modes[h.Name] = h.Mode
	}
	if err := rc.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// open is the volume key that the DiskKey opens.
func (out *output) open(t testing.TB, key []byte) *luks.VolumeKey {
	t.Helper()
	disk := bytes.NewReader(out.files[krun.DiskFile])
	h, err := luks.ReadHeader(disk, disk.Size())
	if err != nil {
		t.Fatal(err)
	}
	vk, err := h.Unlock(secret.New(bytes.Clone(key)))
	if err != nil {
		t.Fatal(err)
	}
	return vk
}

// decrypt opens the disk as the guest does, by the measured identity alone,
// and returns a file with its content.
func (out *output) decrypt(t testing.TB, key []byte) string {
	t.Helper()
	id, _, err := firmware.InspectInitrd(out.files[krun.InitrdFile])
	if err != nil {
		t.Fatal(err)
	}
	disk := bytes.NewReader(out.files[krun.DiskFile])
	vk := out.open(t, key)
	if vk.Digest() != id.Disk.VolumeKeyDigest {
		t.Fatal("volume key is not the one in the identity")
	}
	r, err := luks.NewReader(disk, id.Disk.Geometry, vk)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "plain")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, io.NewSectionReader(r, 0, id.Disk.PlainBytes)); err != nil {
		t.Fatal(err)
	}
	return path
}
