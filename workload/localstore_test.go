package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/signature"
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/storage"
	"github.com/containers/storage/pkg/archive"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/destination"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// overlayStore is a container storage of this test alone, of the kind that
// layers are written into directly.
func overlayStore(t *testing.T) (prefix string, store storage.Store) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers/storage needs root or a user namespace")
	}
	prefix = fmt.Sprintf("containers-storage:[overlay@%s+%s]", t.TempDir(), t.TempDir())
	ref, err := alltransports.ParseImageName(prefix + "localhost/x:1")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("no overlay on this file system: %v", err)
	}
	store = ref.Transport().(istorage.StoreTransport).GetStoreIfSet()
	t.Cleanup(func() { _, _ = store.Shutdown(true) })
	return prefix, store
}

// TestStoreIsTheLibrarys: the records of an image built into local storage
// are what the library makes of the same image, and so is the tar stream that
// a push sends.
func TestStoreIsTheLibrarys(t *testing.T) {
	t.Parallel()
	firmware := testFirmware(t)
	build := func(destination string) (Options, *Result) {
		o := reproducibleOptions(t, &fakeServer{})
		o.Firmware, o.Destination = firmware, destination
		return o, mustBuild(t, o)
	}
	prefix, ours := overlayStore(t)
	_, stored := build(prefix + "localhost/app:1")
	_, again := build(prefix + "localhost/app:2") // the layer is there already
	layout := "oci:" + t.TempDir() + ":app"
	o, plain := build(layout)
	if stored.Digest != plain.Digest || again.Digest != plain.Digest {
		t.Fatalf("digests %s and %s, into a layout %s", stored.Digest, again.Digest, plain.Digest)
	}
	their, theirs := overlayStore(t)
	for _, tag := range []string{"1", "2"} {
		copyImage(t, o, layout, their+"localhost/app:"+tag)
	}
	a, b := records(t, ours), records(t, theirs)
	if !reflect.DeepEqual(a, b) {
		t.Errorf("records differ:\n%+v\n%+v", a, b)
	}
	if d := diffDigest(t, ours); d != onlyLayer(t, ours).UncompressedDigest {
		t.Errorf("a push would send %s", d)
	}
	if x, y := treeOf(t, ours), treeOf(t, theirs); x != y {
		t.Errorf("files differ:\n%s\n%s", x, y)
	}
	report, err := ours.Check(storage.CheckEverything())
	if err != nil || len(report.Layers)+len(report.Images) != 0 {
		t.Errorf("store check: %v %+v", err, report)
	}
}

func copyImage(t *testing.T, o Options, from, to string) {
	t.Helper()
	policy, err := signature.DefaultPolicy(o.System)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := signature.NewPolicyContext(policy)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pc.Destroy() }()
	src, err := alltransports.ParseImageName(from)
	if err != nil {
		t.Fatal(err)
	}
	dst, err := alltransports.ParseImageName(to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := copy.Image(t.Context(), pc, dst, src, &copy.Options{SourceCtx: o.System, DestinationCtx: o.System}); err != nil {
		t.Fatal(err)
	}
}

// records is all that a store says of its one image and one layer, but for
// when they were made.
func records(t *testing.T, s storage.Store) []any {
	t.Helper()
	images, err := s.Images()
	if err != nil || len(images) != 1 {
		t.Fatalf("%d images: %v", len(images), err)
	}
	layer := onlyLayer(t, s)
	layer.Created = time.Time{}
	layer.CompressedSize = 0 // staged layers have none; nobody reads it while both digests are the same
	return []any{images[0].ID, images[0].Digest, images[0].Digests, images[0].Names, images[0].TopLayer, images[0].Metadata,
		images[0].BigDataNames, images[0].BigDataSizes, images[0].BigDataDigests, images[0].Created, fmt.Sprintf("%+v", layer)}
}

func onlyLayer(t *testing.T, s storage.Store) storage.Layer {
	t.Helper()
	layers, err := s.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers: %v", len(layers), err)
	}
	return layers[0]
}

func diffDigest(t *testing.T, s storage.Store) digest.Digest {
	t.Helper()
	none := archive.Uncompressed
	rc, err := s.Diff("", onlyLayer(t, s).ID, &storage.DiffOptions{Compression: &none})
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	d, err := digest.FromReader(rc)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// treeOf lists a layer's files as a container sees them.
func treeOf(t *testing.T, s storage.Store) string {
	t.Helper()
	dir := filepath.Join(s.GraphRoot(), "overlay", onlyLayer(t, s).ID, "diff")
	list := strings.Split(imagetest.Tool(t, "find", dir, "-mindepth", "1", "-printf", "%P %M %U %G %s %T@\n"), "\n")
	slices.Sort(list)
	return imagetest.Tool(t, "stat", "-c", "%A %u %g", dir) + strings.Join(list, "\n")
}

// TestStoreFaults: nothing stays of builds into local storage that fail, are
// cancelled or killed, or lose against another.
func TestStoreFaults(t *testing.T) {
	t.Parallel()
	prefix, store := overlayStore(t)
	base := testOptions(t, &fakeServer{})
	base.SizeBytes, base.Destination = 8<<20, prefix+"localhost/app:1"
	clean := func(what string) {
		t.Helper()
		layers, err := store.Layers()
		images, ierr := store.Images()
		if len(layers)+len(images) != 0 || err != nil || ierr != nil {
			t.Errorf("%s: %d layers, %d images, %v, %v", what, len(layers), len(images), err, ierr)
		}
		left, _ := filepath.Glob(filepath.Join(store.GraphRoot(), "overlay/*/diff"))
		if len(left) != 0 {
			t.Errorf("%s: left over: %v", what, left)
		}
	}
	o := base
	ctx, cancel := context.WithCancel(t.Context())
	o.Progress = func(stage string, done, _ int64) {
		if strings.HasPrefix(stage, "encrypting") && done > 4<<20 {
			cancel()
		}
	}
	if _, err := Build(ctx, o); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, expected %v", err, context.Canceled)
	}
	clean("cancelled")

	o = base
	o.Registrar = &fakeServer{err: errors.New("no")}
	if _, err := Build(t.Context(), o); err == nil {
		t.Fatal("not registered, and accepted")
	}
	clean("not registered")

	killStore(t, prefix, store)
	clean("killed")
}

// killStore kills a build while it writes the layer; what stays is
// ciphertext, which the next build removes.
func killStore(t *testing.T, prefix string, store storage.Store) {
	layout := t.TempDir()
	imagetest.App(t).WriteLayout(t, layout)
	s := childSpec{
		Source: "oci:" + layout, Destination: prefix + "localhost/app:1", Firmware: testFirmware(t), TempDir: t.TempDir(),
		Record: filepath.Join(t.TempDir(), "record"), Policy: imagetest.System(t).SignaturePolicyPath, Stage: "encrypting", Done: 12 << 20,
	}
	runAndKill(t, s)
	imagetest.NoCanary(t, s.TempDir, store.GraphRoot())
	if left, _ := filepath.Glob(filepath.Join(store.GraphRoot(), "overlay/*/diff/disk.img")); len(left) != 1 {
		t.Fatalf("the killed build left %v, expected its disk", left)
	}
	if report, err := store.Check(storage.CheckEverything()); err != nil || len(report.Images)+len(report.Containers) != 0 {
		t.Errorf("store check after a kill: %v %+v", err, report)
	}
	if err := store.GarbageCollect(); err != nil {
		t.Error(err)
	}
	next, _, err := destination.Open(t.Context(), imagetest.System(t), prefix+"localhost/next:1")
	if err == nil {
		err = next.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

// TestStoreFull: a build that runs out of space says so, and takes back what
// it wrote.
func TestStoreFull(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	for _, mib := range []int{1, 2, 6, 14} {
		disk := t.TempDir()
		if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, fmt.Sprintf("size=%dm", mib)); err != nil {
			t.Skipf("no tmpfs: %v", err)
		}
		o := testOptions(t, &fakeServer{})
		o.SizeBytes = 16 << 20
		o.Destination = fmt.Sprintf("containers-storage:[overlay@%s+%s]localhost/app:1", disk, t.TempDir())
		_, err := Build(t.Context(), o)
		var h interface{ Hint() string }
		if !errors.Is(err, syscall.ENOSPC) || !errors.As(err, &h) {
			t.Errorf("%d MiB: error %v, expected %v and a hint", mib, err, syscall.ENOSPC)
		}
		if left, _ := filepath.Glob(disk + "/overlay/*/diff"); len(left) != 0 {
			t.Errorf("%d MiB: left over: %v", mib, left)
		}
		if ref, err := alltransports.ParseImageName(o.Destination); err == nil {
			_, _ = ref.Transport().(istorage.StoreTransport).GetStoreIfSet().Shutdown(true)
		}
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
}

// TestStoreTwoAtOnce: builds that end together in one store lose nothing,
// also when they make the same layer.
func TestStoreTwoAtOnce(t *testing.T) {
	t.Parallel()
	prefix, store := overlayStore(t)
	firmware := testFirmware(t)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		o := reproducibleOptions(t, &fakeServer{})
		o.Firmware, o.WorkloadID = firmware, fmt.Sprint("app", i/2)
		o.Destination = fmt.Sprintf("%slocalhost/app:%d", prefix, i)
		wg.Go(func() { _, errs[i] = Build(t.Context(), o) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	images, err := store.Images()
	layers, lerr := store.Layers()
	if err != nil || lerr != nil || len(images) != 2 || len(layers) != 2 {
		t.Fatalf("%d images, %d layers, %v, %v", len(images), len(layers), err, lerr)
	}
	for i := range errs {
		readOutput(t, imagetest.System(t), fmt.Sprintf("%slocalhost/app:%d", prefix, i))
	}
}
