package workload

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/source"
)

// memoryDir is a directory on a tmpfs.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "ccrun-test-")
	if err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func cacheFiles(t *testing.T, dir string) (paths []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestLayerCache: what the cache has is not read from the source, and gives
// the same image; what is changed, lost or foreign is never used.
func TestLayerCache(t *testing.T) {
	t.Parallel()
	cache, another := &source.LayerCache{Dir: filepath.Join(t.TempDir(), "cache"), KeyDir: memoryDir(t)}, memoryDir(t)
	build := func(change func(*Options)) (string, error) {
		o := reproducibleOptions(t, &fakeServer{})
		o.LayerCache = cache
		change(&o)
		r, err := Build(t.Context(), o)
		if err != nil {
			imagetest.Empty(t, strings.TrimSuffix(strings.TrimPrefix(o.Destination, "oci:"), ":app"))
			return "", err
		}
		return string(r.Digest), nil
	}
	firmware := testFirmware(t)
	same := func(o *Options) { o.Firmware = firmware }
	want, err := build(func(o *Options) { same(o); o.LayerCache = nil })
	if err != nil {
		t.Fatal(err)
	}
	first, err := build(same)
	if err != nil || first != want {
		t.Fatalf("filling the cache: %s, %v; expected %s", first, err, want)
	}
	files := cacheFiles(t, cache.Dir)
	if len(files) != 2 { // the gzip and the zstd layer
		t.Fatalf("cache has %v", files)
	}
	imagetest.NoCanary(t, cache.Dir)
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v (%v)", f, st.Mode(), err)
		}
	}
	fromCache := func(o *Options) { same(o); removeCompressed(t, o.Source) }
	if got, err := build(fromCache); err != nil || got != want {
		t.Errorf("from the cache: %s, %v; expected %s", got, err, want)
	}
	t.Run("changed", func(t *testing.T) {
		for _, at := range []int64{4096 + 600, 4096 + 10, 40, 0} { // content, header of a tar, salt, magic
			for _, f := range files {
				flipAt(t, f, at)
			}
			if got, err := build(same); err == nil && got != want {
				t.Errorf("byte %d changed: another image", at)
			} else if err != nil && (!errors.Is(err, blob.ErrDigest) || got != "") {
				t.Errorf("byte %d changed: %v", at, err)
			}
			for range 2 { // the other layer's may be wrong as well
				if got, err := build(same); err == nil && got == want {
					break
				}
			}
			if got, err := build(fromCache); err != nil || got != want {
				t.Errorf("byte %d changed, then built twice: %v", at, err)
			}
		}
	})
	t.Run("swapped", func(t *testing.T) {
		if err := unix.Renameat2(unix.AT_FDCWD, files[0], unix.AT_FDCWD, files[1], unix.RENAME_EXCHANGE); err != nil {
			t.Skip(err)
		}
		if got, err := build(same); err != nil || got != want {
			t.Errorf("%s, %v", got, err)
		}
	})
	t.Run("key lost", func(t *testing.T) {
		before, _ := os.ReadFile(files[0])
		cache.KeyDir = another
		if got, err := build(same); err != nil || got != want {
			t.Fatalf("%s, %v", got, err)
		}
		after, err := os.ReadFile(files[0])
		if err != nil || len(after) != len(before) || bytes.Equal(after[4096:], before[4096:]) {
			t.Errorf("not made anew: %v", err)
		}
	})
	t.Run("full", func(t *testing.T) {
		cache.MaxBytes = 6000
		defer func() { cache.MaxBytes = 0 }()
		if _, err := build(func(o *Options) { same(o); changeCompressed(t, o) }); err != nil {
			t.Fatal(err)
		}
		if left := cacheFiles(t, cache.Dir); len(left) > 1 {
			t.Errorf("limit of 6000 bytes, %v left", left)
		}
	})
}

// TestLayerCacheRefusals: no key where it would be on a disk, or others see
// it; and a build that ends early leaves nothing.
func TestLayerCacheRefusals(t *testing.T) {
	t.Parallel()
	shm := memoryDir(t)
	build := func(c *source.LayerCache, ctx context.Context) error {
		o := testOptions(t, &fakeServer{})
		o.LayerCache = c
		_, err := Build(ctx, o)
		return err
	}
	writable := filepath.Join(shm, "writable")
	imagetest.WriteFile(t, filepath.Join(writable, source.CacheKeyFile), make([]byte, 32))
	short := filepath.Join(shm, "short")
	imagetest.WriteFile(t, filepath.Join(short, source.CacheKeyFile), make([]byte, 31))
	if err := os.Chmod(filepath.Join(short, source.CacheKeyFile), 0o600); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"/proc": "not in memory", writable: "only its owner", short: "expected 32"} {
		if err := build(&source.LayerCache{Dir: t.TempDir(), KeyDir: dir}, t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("key in %s: %v", dir, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if err := build(&source.LayerCache{Dir: dir, KeyDir: shm}, ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	imagetest.Empty(t, dir)
}

func flipAt(t *testing.T, path string, at int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// removeCompressed deletes the source's compressed blobs.
func removeCompressed(t *testing.T, source string) {
	t.Helper()
	for _, l := range imagetest.App(t).Layers[1:] {
		if err := os.Remove(imagetest.BlobPath(strings.TrimPrefix(source, "oci:"), digest.FromBytes(l.Blob))); err != nil {
			t.Fatal(err)
		}
	}
}

// changeCompressed gives o a source with one more compressed layer.
func changeCompressed(t testing.TB, o *Options) {
	m := imagetest.App(t)
	layer := imagetest.Tar(t, imagetest.File{Name: "etc/more", Content: strings.Repeat(imagetest.Canary, 100)})
	m.Add(imgspec.MediaTypeImageLayerGzip, layer, imagetest.Gzip(t, layer))
	dir := t.TempDir()
	m.WriteLayout(t, dir)
	o.Source = "oci:" + dir
}

// BenchmarkRebuild is a build after the last of three compressed layers has
// changed, beside the same build without a cache, in turn.
func BenchmarkRebuild(b *testing.B) {
	dir := b.TempDir()
	b.SetBytes(benchLayers(b, dir, true))
	run := func(c *source.LayerCache) time.Duration {
		o := testOptions(b, &fakeServer{})
		o.SizeBytes, o.LayerCache, o.Source = 0, c, "oci:"+dir
		start := time.Now()
		if _, err := Build(b.Context(), o); err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		if err := os.RemoveAll(strings.TrimSuffix(strings.TrimPrefix(o.Destination, "oci:"), ":app")); err != nil {
			b.Fatal(err)
		}
		return took
	}
	cache := &source.LayerCache{Dir: b.TempDir(), KeyDir: memoryDir(b)}
	run(cache)
	files, err := filepath.Glob(filepath.Join(cache.Dir, "*"))
	if err != nil || len(files) != 3 {
		b.Fatalf("cache has %v (%v)", files, err)
	}
	var anew, again time.Duration
	for b.Loop() {
		if err := os.Remove(files[0]); err != nil { // the layer that changed
			b.Fatal(err)
		}
		again += run(cache)
		anew += run(nil)
	}
	b.ReportMetric(float64(again)/float64(anew), "rebuild/first")
	b.ReportMetric(again.Seconds()/float64(b.N), "rebuild-s")
	b.ReportMetric(anew.Seconds()/float64(b.N), "first-s")
}
