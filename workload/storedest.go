package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	drivers "github.com/containers/storage/drivers"
	"golang.org/x/sys/unix"
)

// storeDestination imports into local storage without the library's detour,
// which writes the layer into a file, reads that again, and holds the store's
// lock while it unpacks. The layer's files are written where the store will
// keep them but for a rename, with no lock held; the store then adopts them
// under the layer's digest, which is the name that the library looks for when
// it commits manifest and configuration.
type storeDestination struct {
	*libraryDestination
	store   storage.Store
	root    string // of image layers
	scratch *scratch
	staged  *stagedLayer
}

// newStoreDestination returns nil where layers cannot be adopted: other
// drivers than overlay, and options that change how files are stored.
func newStoreDestination(ref types.ImageReference, lib *libraryDestination) (*storeDestination, error) {
	t, ok := ref.Transport().(istorage.StoreTransport)
	if !ok {
		return nil, nil
	}
	store := t.GetStoreIfSet()
	if store == nil || !adopts(store) {
		return nil, nil
	}
	root := store.GraphRoot()
	if dir := store.ImageStore(); dir != "" {
		root = dir
	}
	if !sameDevice(root, filepath.Join(root, store.GraphDriverName())) {
		return nil, nil
	}
	sweepScratch(root)
	s, err := newScratch(root)
	if err != nil {
		return nil, err
	}
	return &storeDestination{libraryDestination: lib, store: store, root: root, scratch: s}, nil
}

// adopts says whether files written by us are what the store would write.
func adopts(store storage.Store) bool {
	if store.GraphDriverName() != "overlay" || len(store.UIDMap())+len(store.GIDMap()) > 0 {
		return false
	}
	driver, err := store.GraphDriver()
	if err != nil {
		return false
	}
	if _, ok := driver.(drivers.DriverWithDiffer); !ok {
		return false
	}
	for _, o := range store.GraphOptions() {
		key, _, _ := strings.Cut(o, "=")
		if strings.HasSuffix(key, "force_mask") || strings.HasSuffix(key, "use_composefs") {
			return false
		}
	}
	return true
}

func sameDevice(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev
}

// putLayer writes the layer's files beside the store's own.
func (d *storeDestination) putLayer(ctx context.Context, size int64, write layerFunc) (blobInfo, error) {
	dir := filepath.Join(d.scratch.dir, "diff")
	if err := d.makeRoot(dir); err != nil {
		return blobInfo{}, fmt.Errorf("making directory for the layer: %w", spaceError(d.root, err))
	}
	return piped(ctx, write, func(r io.Reader) (blobInfo, error) {
		s, err := stageLayer(r, dir)
		if err != nil {
			return blobInfo{}, spaceError(d.root, err)
		}
		d.staged = s
		if s.info.size != size {
			return blobInfo{}, fmt.Errorf("layer of %d bytes, expected %d", s.info.size, size)
		}
		return s.info, nil
	})
}

// makeRoot makes the layer's root directory as the overlay driver does, under
// the SELinux label of its directory, so that containers may read what is in it.
func (d *storeDestination) makeRoot(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		return err
	}
	const label = "security.selinux"
	b := make([]byte, 1024)
	n, err := unix.Lgetxattr(filepath.Join(d.root, d.store.GraphDriverName()), label, b)
	if err == nil && n > 0 {
		err = unix.Lsetxattr(dir, label, b[:n], 0)
	}
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

func (d *storeDestination) publish(ctx context.Context, config, manifest []byte) error {
	adopted, err := d.adopt()
	if err != nil {
		return fmt.Errorf("adding layer to local storage: %w", spaceError(d.root, err))
	}
	if err := d.libraryDestination.publish(ctx, config, manifest); err != nil {
		if adopted { // refused if an image uses it meanwhile
			_ = d.store.DeleteLayer(d.staged.info.digest.Encoded())
		}
		return err
	}
	return nil
}

// adopt makes the store take the files over, unless it has that layer: a
// reproducible build may have been done before. Of two that end at the same
// time the second waits here and sees the first's.
func (d *storeDestination) adopt() (bool, error) {
	lock, err := os.Open(d.root)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return false, fmt.Errorf("locking %s: %w", d.root, err)
	}
	id := d.staged.info.digest.Encoded()
	if _, err := d.store.Layer(id); err == nil {
		return false, nil
	} else if !errors.Is(err, storage.ErrLayerUnknown) {
		return false, err
	}
	_, err = d.store.ApplyStagedLayer(storage.ApplyStagedLayerOptions{
		ID: id, DiffOutput: d.staged.output(), DiffOptions: &drivers.ApplyDiffWithDifferOpts{},
	})
	return err == nil, err
}

// Close removes what the store did not take.
func (d *storeDestination) Close() error {
	var err error
	if d.staged != nil {
		err = d.staged.Close()
	}
	return errors.Join(err, d.scratch.Close(), d.libraryDestination.Close())
}
