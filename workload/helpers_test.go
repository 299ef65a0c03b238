package workload

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containers/image/v5/types"
	"github.com/containers/storage/pkg/reexec"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// canary is plaintext that must never be found in a file.
const canary = "canary-3f1c-plaintext-must-not-touch-the-disk"

func TestMain(m *testing.M) {
	if reexec.Init() { // containers/storage unpacks layers in a child
		return
	}
	if os.Getenv("CCRUN_TEST_CHILD") != "" {
		killedChild()
		return
	}
	os.Exit(m.Run())
}

type file struct {
	name, content, link string
	mode                int64
	kind                byte
}

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: f.kind, Linkname: f.link}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstded(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// testImage is an image under construction.
type testImage struct {
	config imgspec.Image
	layers []testLayer
}

type testLayer struct {
	mediaType   string
	plain       []byte // uncompressed
	blob        []byte // as stored; nil: it is there already
	digest      digest.Digest
	size        int64
	annotations map[string]string
}

// appImage has a plain, a gzip and a zstd layer, a whiteout and a link.
func appImage(t testing.TB) *testImage {
	base := tarOf(t,
		file{name: "bin/", kind: tar.TypeDir, mode: 0o755},
		file{name: "bin/app", content: "#!/bin/true\n" + strings.Repeat(canary, 100), mode: 0o755},
		file{name: "etc/", kind: tar.TypeDir, mode: 0o755},
		file{name: "etc/secret", content: canary},
		file{name: "etc/old", content: "to be removed"})
	middle := tarOf(t, file{name: "etc/.wh.old"}, file{name: "srv/data", content: strings.Repeat(canary+"\n", 5000)})
	top := tarOf(t, file{name: "bin/sh", link: "app", kind: tar.TypeSymlink}, file{name: "etc/new", content: "new\n"})
	m := &testImage{config: imgspec.Image{
		Platform: imgspec.Platform{OS: "linux", Architecture: "amd64"},
		Config: imgspec.ImageConfig{
			Entrypoint: []string{"/bin/app"}, Cmd: []string{"--serve"}, Env: []string{"PATH=/bin", "SECRET=" + canary},
			WorkingDir: "/srv", User: "1000:1000", StopSignal: "SIGINT",
			ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}},
		},
		RootFS: imgspec.RootFS{Type: "layers"},
	}}
	m.add(imgspec.MediaTypeImageLayer, base, base)
	m.add(imgspec.MediaTypeImageLayerGzip, middle, gzipped(t, middle))
	m.add(imgspec.MediaTypeImageLayerZstd, top, zstded(t, top))
	return m
}

func (m *testImage) add(mediaType string, plain, blob []byte) {
	m.config.RootFS.DiffIDs = append(m.config.RootFS.DiffIDs, digest.FromBytes(plain))
	m.layers = append(m.layers, testLayer{mediaType: mediaType, plain: plain, blob: blob})
}

func writeTestFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func blobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs/sha256", d.Encoded())
}

// writeLayout puts m into an image layout and returns its manifest's digest.
func (m *testImage) writeLayout(t testing.TB, dir string) digest.Digest {
	t.Helper()
	put := func(b []byte) digest.Digest {
		writeTestFile(t, blobPath(dir, digest.FromBytes(b)), b)
		return digest.FromBytes(b)
	}
	config := mustJSON(t, m.config)
	mf := imgspec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageManifest,
		Config: imgspec.Descriptor{MediaType: imgspec.MediaTypeImageConfig, Digest: put(config), Size: int64(len(config))},
	}
	for _, l := range m.layers {
		if l.blob != nil {
			l.digest, l.size = put(l.blob), int64(len(l.blob))
		}
		mf.Layers = append(mf.Layers, imgspec.Descriptor{MediaType: l.mediaType, Digest: l.digest, Size: l.size, Annotations: l.annotations})
	}
	b := mustJSON(t, mf)
	index := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []imgspec.Descriptor{
		{MediaType: imgspec.MediaTypeImageManifest, Digest: put(b), Size: int64(len(b))}}}
	writeTestFile(t, filepath.Join(dir, "index.json"), mustJSON(t, index))
	writeTestFile(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"`+imgspec.ImageLayoutVersion+`"}`))
	return digest.FromBytes(b)
}

func mustJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

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

func (s *fakeServer) Get(_ context.Context, id string) (*kbs.WorkloadStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.reqs[id]; ok {
		return &kbs.WorkloadStatus{Registration: r.Registration}, nil
	}
	return nil, &kbs.ProblemError{Problem: kbs.Problem{Status: 404, Code: kbs.CodeNotFound}}
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

func testSystem(t testing.TB) *types.SystemContext {
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.json")
	writeTestFile(t, policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
	registries := filepath.Join(dir, "registries.conf")
	writeTestFile(t, registries, nil)
	return &types.SystemContext{SignaturePolicyPath: policy, SystemRegistriesConfPath: registries, SystemRegistriesConfDirPath: filepath.Join(dir, "none")}
}

func testFirmware(t testing.TB) string {
	dir := t.TempDir()
	writeTestFile(t, filepath.Join(dir, "vmlinuz"), bytes.Repeat([]byte("kernel"), 1000))
	writeTestFile(t, filepath.Join(dir, firmware.ConfigFile),
		mustJSON(t, firmware.Config{Version: 1, Kind: firmware.KindQEMUDirect, Kernel: "vmlinuz", Cmdline: "quiet"}))
	return dir
}

// testOptions builds the app image from an image layout.
func testOptions(t testing.TB, server *fakeServer) Options {
	t.Helper()
	layout := t.TempDir()
	appImage(t).writeLayout(t, layout)
	o := Options{
		Source: "oci:" + layout, Destination: "oci:" + filepath.Join(t.TempDir(), "out") + ":app",
		TEE: kbs.Sample, CPUs: 1, MemoryMiB: 512,
		Servers:  krun.Servers{URLs: []string{"https://kbs.example:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
		Firmware: testFirmware(t), Agent: stub(), // any static ELF will do
		System: testSystem(t), TempDir: t.TempDir(),
		SizeBytes: 16 << 20,
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
	src, err := openSource(t.Context(), sys, name)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if len(src.layers) != 1 {
		t.Fatalf("%d layers, expected 1", len(src.layers))
	}
	rc, err := src.layers[0].stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := &output{labels: src.config.Config.Labels, files: map[string][]byte{}, modes: map[string]int64{}}
	tr := tar.NewReader(rc)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if out.files[h.Name], err = io.ReadAll(tr); err != nil {
			t.Fatal(err)
		}
		out.modes[h.Name] = h.Mode
	}
	if err := rc.Close(); err != nil {
		t.Fatal(err)
	}
	return out
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
	h, err := luks.ReadHeader(disk, disk.Size())
	if err != nil {
		t.Fatal(err)
	}
	vk, err := h.Unlock(secret.New(bytes.Clone(key)))
	if err != nil {
		t.Fatal(err)
	}
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

// tool runs an outside program; without it the test is skipped, but not in CI.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path = "/usr/sbin/" + name; !fileThere(path) {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is not installed", name)
			}
			t.Skipf("%s is not installed", name)
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func fileThere(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// noCanary fails if any file under dirs holds plaintext.
func noCanary(t testing.TB, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return ignoreGone(err)
			}
			b, err := os.ReadFile(p)
			if bytes.Contains(b, []byte(canary)) {
				t.Errorf("plaintext in %s", p)
			}
			return ignoreGone(err)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// empty fails if dir holds anything.
func empty(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if ignoreGone(err) != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left over: %s", filepath.Join(dir, e.Name()))
	}
}
