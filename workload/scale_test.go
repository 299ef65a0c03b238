package workload

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/types"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// maxBuildMiB is what a build may take of memory, whatever it builds.
const maxBuildMiB = 512

// cost is what a build took, in a process of its own.
type cost struct {
	PeakMiB int64
	Seconds float64
	Err     string
}

// measuredChild builds and says what it took. The peak is VmHWM, which is this
// program's alone: ru_maxrss starts with the parent's.
func measuredChild(s childSpec) {
	debug.SetMemoryLimit(MemoryTargetBytes) // as ccrun does
	start := time.Now()
	_, err := Build(context.Background(), s.options())
	c := cost{PeakMiB: peakMiB(), Seconds: time.Since(start).Seconds()}
	if err != nil {
		c.Err = err.Error()
	}
	_ = json.NewEncoder(os.Stdout).Encode(c)
}

func peakMiB() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			if err != nil {
				panic(err)
			}
			return kib >> 10
		}
	}
	panic("no VmHWM in /proc/self/status")
}

func (s childSpec) options() Options {
	return Options{
		Environment:    Environment{TempDir: s.TempDir, System: &types.SystemContext{SignaturePolicyPath: s.Policy}},
		SourceOptions:  SourceOptions{Source: s.Source},
		MachineOptions: MachineOptions{TEE: kbs.Sample, CPUs: 1, MemoryMiB: 512, Firmware: s.Firmware, Agent: stub()},
		DiskOptions:    DiskOptions{SizeBytes: s.SizeBytes, Filesystem: s.Filesystem},
		PublishOptions: PublishOptions{Destination: s.Destination, RecordPath: s.Record},
		Servers:        krun.Servers{URLs: []string{"https://192.0.2.1:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}},
	}
}

// buildMeasured builds the layout src in a child and removes what it made.
func buildMeasured(t testing.TB, src, filesystem string) cost {
	t.Helper()
	out := t.TempDir()
	s := childSpec{
		Source: "oci:" + src, Destination: "oci:" + filepath.Join(out, "image"), Firmware: testFirmware(t), TempDir: out,
		Record: filepath.Join(out, "record"), Policy: imagetest.System(t).SignaturePolicyPath, Measure: true, Filesystem: filesystem,
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CCRUN_TEST_CHILD="+string(imagetest.JSON(t, s)))
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var c cost
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatalf("child said %q: %v", b, err)
	}
	if err := os.RemoveAll(filepath.Join(out, "image")); err != nil {
		t.Fatal(err)
	}
	return c
}

// streamedLayout writes an image layout of one layer that is never in memory:
// what write puts into the archive, with holes where it skips.
func streamedLayout(t testing.TB, dir string, write func(*tar.Writer)) {
	t.Helper()
	m := &imagetest.Image{Config: imagetest.App(t).Config}
	m.Config.Config.User = "1000:1000"
	m.Config.RootFS.DiffIDs = nil
	m.WriteLayout(t, dir)
	f, err := os.Create(filepath.Join(dir, "blobs/sha256/layer"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	buffered := bufio.NewWriterSize(io.MultiWriter(&holeWriter{f: f}, h), 1<<20)
	w := tar.NewWriter(buffered)
	write(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := buffered.Flush(); err != nil {
		t.Fatal(err)
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := digest.NewDigest(digest.SHA256, h)
	if err := os.Rename(f.Name(), imagetest.BlobPath(dir, d)); err != nil {
		t.Fatal(err)
	}
	m.Config.RootFS.DiffIDs = []digest.Digest{d}
	m.Layers = []imagetest.Layer{{MediaType: imgspec.MediaTypeImageLayer, Digest: d, Size: size}}
	m.WriteLayout(t, dir)
}

// holeWriter leaves out zeros, so that a large test file takes no space.
type holeWriter struct{ f *os.File }

func (w *holeWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != 0 {
			return w.f.Write(p)
		}
	}
	_, err := w.f.Seek(int64(len(p)), io.SeekCurrent)
	return len(p), err
}

// zeroFiles is an image of n bytes of zeros in files of 64 MiB.
func zeroFiles(t testing.TB, dir string, n int64) {
	const each = 64 << 20
	block := make([]byte, 1<<20)
	streamedLayout(t, dir, func(w *tar.Writer) {
		for i := range n / each {
			if err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("data/%d", i), Mode: 0o644, Size: each, Typeflag: tar.TypeReg}); err != nil {
				t.Fatal(err)
			}
			for range each / len(block) {
				if _, err := w.Write(block); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// manyFiles is an image of n small files, 250 to a directory.
func manyFiles(t testing.TB, dir string, n int) {
	streamedLayout(t, dir, func(w *tar.Writer) {
		for i := range n {
			name := fmt.Sprintf("usr/share/package-%05d/content/file-%07d.txt", i/250, i)
			body := name[:i%2*8] // every other one empty
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), Typeflag: tar.TypeReg, ModTime: time.Unix(1700000000, 0)}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, body); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestScale: neither bytes nor files may take memory without bound. With
// CCRUN_LONG there are more of both, on each file system. With CCRUN_SCALE=bytes or files it measures
// what the documentation speaks of, which takes minutes and 11 GB of space.
func TestScale(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds large images")
	}
	sizes, files, filesystems := []int64{16 << 20, 128 << 20}, []int{20_000}, []string{"btrfs"}
	if os.Getenv("CCRUN_LONG")+os.Getenv("CCRUN_SCALE") != "" {
		sizes, files, filesystems = []int64{64 << 20, 192 << 20}, []int{100_000}, []string{"ext4", "erofs", "btrfs"}
	}
	switch os.Getenv("CCRUN_SCALE") {
	case "bytes":
		sizes, files = []int64{1 << 30, 3 << 30, 10 << 30}, nil
	case "files":
		sizes, files = nil, []int{100_000, 1_000_000}
	}
	first := map[string]cost{}
	for i, n := range sizes {
		dir := filepath.Join(t.TempDir(), "src")
		zeroFiles(t, dir, n)
		for _, fs := range filesystems {
			c := buildMeasured(t, dir, fs)
			t.Logf("%5d MiB, %s: peak %d MiB, %.2f s, %.2f s/GiB", n>>20, fs, c.PeakMiB, c.Seconds, c.Seconds/float64(n)*(1<<30))
			if i == 0 {
				first[fs] = c
			}
			if c.Err != "" || c.PeakMiB > first[fs].PeakMiB+64 {
				t.Errorf("%d MiB of content, %s: peak %d MiB, was %d for %d MiB: %s", n>>20, fs, c.PeakMiB, first[fs].PeakMiB, sizes[0]>>20, c.Err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range files {
		dir := t.TempDir()
		manyFiles(t, dir, n)
		for _, fs := range filesystems {
			c := buildMeasured(t, dir, fs)
			t.Logf("%7d files, %s: peak %d MiB, %.2f s", n, fs, c.PeakMiB, c.Seconds)
			// Of the limit, what these files may take, and the rest of a build.
			if limit := int64(128 + n*(maxBuildMiB-128)/1_000_000); c.Err != "" || c.PeakMiB > limit {
				t.Errorf("%d files, %s: peak %d MiB, expected at most %d: %s", n, fs, c.PeakMiB, limit, c.Err)
			}
		}
	}
}

// TestBombs: layers that are small as they come and want all memory there is
// are refused, soon and in little memory.
func TestBombs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes large layers")
	}
	attribute := strings.Repeat("v", 60<<10)
	for name, bomb := range map[string]struct {
		entries int
		header  func(i int) *tar.Header
		want    string
		slow    bool
	}{
		"attributes": {entries: 3_500, slow: true, header: func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprint("f", i), Typeflag: tar.TypeReg, PAXRecords: map[string]string{"SCHILY.xattr.user.x": attribute}}
		}, want: "bytes of names and attributes"},
		"link targets": {entries: 45_000, slow: true, header: func(i int) *tar.Header {
			return &tar.Header{Name: fmt.Sprint("f", i), Typeflag: tar.TypeSymlink, Linkname: attribute[:4095]}
		}, want: "bytes of names and attributes"},
		"entries": {entries: 1<<20 + 1, header: func(int) *tar.Header { return &tar.Header{Name: "f", Typeflag: tar.TypeReg} }, want: "entries: at most 1048576"},
		"10 TB":   {entries: 1, header: func(int) *tar.Header { return &tar.Header{Name: "f", Typeflag: tar.TypeReg, Size: 10e12} }, want: "bytes of file content"},
	} {
		t.Run(name, func(t *testing.T) {
			if bomb.entries > 1<<20 && os.Getenv("CCRUN_SCALE") == "" {
				t.Skip("CCRUN_SCALE=files writes a million entries")
			}
			if bomb.slow && os.Getenv("CCRUN_LONG") == "" {
				t.Skip("CCRUN_LONG=1 does what takes seconds")
			}
			dir := t.TempDir()
			gzippedLayout(t, dir, func(w io.Writer) {
				tw := tar.NewWriter(w)
				for i := range bomb.entries {
					if err := tw.WriteHeader(bomb.header(i)); err != nil {
						t.Fatal(err)
					}
				}
			})
			c := buildMeasured(t, dir, "erofs")
			t.Logf("refused after %.1f s, peak %d MiB", c.Seconds, c.PeakMiB)
			if !strings.Contains(c.Err, bomb.want) || c.PeakMiB > maxBuildMiB {
				t.Errorf("peak %d MiB: %s", c.PeakMiB, c.Err)
			}
		})
	}
}

// gzippedLayout writes an image layout of one gzip layer.
func gzippedLayout(t testing.TB, dir string, write func(io.Writer)) {
	t.Helper()
	var blob bytes.Buffer
	z, err := gzip.NewWriterLevel(&blob, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	write(io.MultiWriter(z, h))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	m := &imagetest.Image{Config: imagetest.App(t).Config, Layers: []imagetest.Layer{{MediaType: imgspec.MediaTypeImageLayerGzip, Blob: blob.Bytes()}}}
	m.Config.Config.User = "1000:1000"
	m.Config.RootFS.DiffIDs = []digest.Digest{digest.NewDigest(digest.SHA256, h)}
	m.WriteLayout(t, dir)
}
