package destination

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// TestOverlayIsAdopted: into overlay's layers are written directly, into those
// of other drivers by the library.
func TestOverlayIsAdopted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containers/storage needs root or a user namespace")
	}
	for driver, want := range map[string]bool{"overlay": true, "vfs": false} {
		ref, err := alltransports.ParseImageName(fmt.Sprintf("containers-storage:[%s@%s+%s]localhost/x:1", driver, t.TempDir(), t.TempDir()))
		if err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skipf("no %s on this file system: %v", driver, err)
		}
		store := ref.Transport().(istorage.StoreTransport).GetStoreIfSet()
		if got := adopts(store); got != want {
			t.Errorf("%s: written into directly: %t", driver, got)
		}
		_, _ = store.Shutdown(true)
	}
}

// smallStore is a container storage on a file system of its own, which fill
// makes full to the last block.
func smallStore(t *testing.T) (prefix, disk string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	disk = t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	prefix = fmt.Sprintf("containers-storage:[overlay@%s+%s]", disk, t.TempDir())
	t.Cleanup(func() {
		forget(t, prefix)
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return prefix, disk
}

func fill(t *testing.T, disk string) {
	t.Helper()
	f, err := os.Create(filepath.Join(disk, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// forget closes the library's store, as the end of a process does.
func forget(t *testing.T, prefix string) {
	t.Helper()
	_, _ = storeOf(t, prefix).Shutdown(true)
}

func storeOf(t *testing.T, prefix string) storage.Store {
	t.Helper()
	ref, err := alltransports.ParseImageName(prefix + "localhost/x:1")
	if err != nil {
		t.Fatal(err)
	}
	return ref.Transport().(istorage.StoreTransport).GetStoreIfSet()
}

// holds compares what a store has with what it should, also as the next
// process will see it.
func holds(t *testing.T, prefix, disk string, layers, images int) {
	t.Helper()
	for range 2 {
		s := storeOf(t, prefix)
		ls, lerr := s.Layers()
		is, ierr := s.Images()
		dirs, gerr := filepath.Glob(disk + "/overlay/*/diff")
		if err := errors.Join(lerr, ierr, gerr); err != nil || len(ls) != layers || len(dirs) != layers || len(is) != images {
			t.Errorf("%d layers, directories %q, %d images, %v; expected %d layers, %d images", len(ls), dirs, len(is), err, layers, images)
		}
		forget(t, prefix)
	}
}

func openStore(t *testing.T, prefix string) *storeImage {
	t.Helper()
	d, _, err := Open(t.Context(), imagetest.System(t), prefix+"localhost/app:1")
	if err != nil {
		t.Fatal(err)
	}
	return d.(*storeImage)
}

// putLayer writes a layer, and ends in an error after that.
func putLayer(t *testing.T, d *storeImage, end error) blob.Info {
	t.Helper()
	b := layerTar(t, bytes.Repeat([]byte("d"), 1<<20))
	info, err := d.PutLayer(t.Context(), int64(len(b)), func(_ context.Context, w io.Writer) error {
		_, err := w.Write(b)
		return errors.Join(err, end)
	})
	if !errors.Is(err, end) {
		t.Fatal(err)
	}
	return info
}

// imageOf is configuration and manifest of an image with that one layer.
func imageOf(t *testing.T, layer blob.Info) (config, manifest []byte) {
	t.Helper()
	config = imagetest.JSON(t, v1.Image{RootFS: v1.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}}})
	return config, imagetest.JSON(t, v1.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		Config: v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: []v1.Descriptor{{MediaType: v1.MediaTypeImageLayer, Digest: layer.Digest, Size: layer.Size}},
	})
}

// TestFullStoreIsLeftClean: where not a block is free, what failed is removed
// all the same.
func TestFullStoreIsLeftClean(t *testing.T) {
	prefix, disk := smallStore(t)
	d := openStore(t, prefix)
	putLayer(t, d, errors.New("cut off"))
	fill(t, disk)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	holds(t, prefix, disk, 0, 0)
}

// TestFullStoreIsPublishedTo: the records of an image whose layer is there
// have the room that was set aside for them.
func TestFullStoreIsPublishedTo(t *testing.T) {
	prefix, disk := smallStore(t)
	d := openStore(t, prefix)
	layer := putLayer(t, d, nil)
	fill(t, disk)
	config, manifest := imageOf(t, layer)
	if err := errors.Join(d.Publish(t.Context(), config, manifest), d.Close()); err != nil {
		t.Error(err)
	}
	holds(t, prefix, disk, 1, 1)
}

// TestPublishFails takes the layer back that the store has adopted.
func TestPublishFails(t *testing.T) {
	prefix, disk := smallStore(t)
	d := openStore(t, prefix)
	config, _ := imageOf(t, putLayer(t, d, nil))
	if err := d.Publish(t.Context(), config, json.RawMessage("{}")); err == nil {
		t.Error("a manifest of nothing was published")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	holds(t, prefix, disk, 0, 0)
}

// TestSweepStore: what a killed build left goes when the next one begins, even
// at once and on a full disk; what a living one has stays.
func TestSweepStore(t *testing.T) {
	for name, die := range map[string]func(disk string, d *storeImage){
		"while it wrote on a full disk": func(disk string, _ *storeImage) { fill(t, disk) },
		"while it removed the layer itself": func(_ string, d *storeImage) {
			if err := os.RemoveAll(filepath.Dir(d.dir)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			prefix, disk := smallStore(t)
			d := openStore(t, prefix)
			putLayer(t, d, nil)
			if err := openStore(t, prefix).Close(); err != nil {
				t.Error(err)
			}
			holds(t, prefix, disk, 1, 0)
			if err := errors.Join(d.lock.Close(), d.giveRoom(), d.staged.Close()); err != nil {
				t.Fatal(err)
			}
			die(disk, d)
			if err := openStore(t, prefix).Close(); err != nil {
				t.Error(err)
			}
			holds(t, prefix, disk, 0, 0)
		})
	}
}
