package destination

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	drivers "github.com/containers/storage/drivers"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// storeImage imports into local storage without the library's detour,
// which writes the layer into a file, reads that again, and holds the store's
// lock while it unpacks. The layer's files are written where they will stay
// but for a rename, with no lock held; the store then adopts them under the
// layer's digest, which is the name that the library looks for when it commits
// manifest and configuration.
//
// Until then they are in the directory of a layer of our own, which no image
// uses. The store knows that layer, and so neither collects it as garbage nor
// fails over it. What a killed build left is removed by the next.
type storeImage struct {
	*libraryImage
	store  storage.Store
	own    string   // id of our layer
	dir    string   // its files
	lock   *os.File // held while the build lives
	staged *stagedLayer
}

// newStoreImage returns nil where layers cannot be adopted: with other drivers
// than overlay, and with options that change how files are stored.
func newStoreImage(ref types.ImageReference, lib *libraryImage) *storeImage {
	t, ok := ref.Transport().(istorage.StoreTransport)
	if !ok {
		return nil
	}
	store := t.GetStoreIfSet()
	if store == nil || !adopts(store) {
		return nil
	}
	sweepStore(store)
	return &storeImage{libraryImage: lib, store: store}
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
		option, _, _ := strings.Cut(o, "=")
		if strings.HasSuffix(option, "force_mask") || strings.HasSuffix(option, "use_composefs") {
			return false
		}
	}
	return true
}

// sweepStore removes the layers of builds that no longer run.
func sweepStore(store storage.Store) {
	layers, err := store.Layers()
	if err != nil {
		return // whatever uses the store next will say so
	}
	for _, l := range layers {
		if len(l.Names) != 1 || !strings.HasPrefix(l.Names[0], scratch.Pattern) || time.Since(l.Created) < scratch.Grace {
			continue
		}
		dir, err := filesOf(store, l.ID)
		if err != nil {
			continue
		}
		if lock, err := scratch.Lock(filepath.Dir(dir)); err == nil {
			_ = store.DeleteLayer(l.ID)
			_ = lock.Close()
		}
	}
}

// filesOf is the directory with a layer's files.
func filesOf(store storage.Store, id string) (string, error) {
	driver, err := store.GraphDriver()
	if err != nil {
		return "", err
	}
	m, err := driver.Metadata(id)
	if err != nil {
		return "", err
	}
	dir := m["UpperDir"]
	if dir == "" {
		return "", fmt.Errorf("local storage does not say where layer %s is", id)
	}
	return dir, nil
}

// PutLayer writes the layer's files beside the store's own.
func (d *storeImage) PutLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	if err := d.begin(); err != nil {
		return blob.Info{}, fmt.Errorf("making a layer in local storage: %w", scratch.SpaceError(d.store.GraphRoot(), err))
	}
	return blob.Pipe(ctx, write, func(r io.Reader) (blob.Info, error) {
		s, err := stageLayer(r, d.dir)
		if err != nil {
			return blob.Info{}, scratch.SpaceError(d.store.GraphRoot(), err)
		}
		d.staged = s
		if s.info.Size != size {
			return blob.Info{}, fmt.Errorf("layer of %d bytes, expected %d", s.info.Size, size)
		}
		return s.info, nil
	})
}

// begin makes our layer and locks it.
func (d *storeImage) begin() error {
	name := scratch.Pattern + rand.Text()
	layer, err := d.store.CreateLayer("", "", []string{name}, "", false, nil)
	if err != nil {
		return err
	}
	d.own = layer.ID
	if d.dir, err = filesOf(d.store, d.own); err != nil {
		return err
	}
	d.lock, err = scratch.Lock(filepath.Dir(d.dir))
	return err
}

func (d *storeImage) Publish(ctx context.Context, config, manifest []byte) error {
	adopted, err := d.adopt()
	if err != nil {
		return fmt.Errorf("adding layer to local storage: %w", scratch.SpaceError(d.store.GraphRoot(), err))
	}
	if err := d.libraryImage.Publish(ctx, config, manifest); err != nil {
		if adopted { // refused if an image uses it meanwhile
			_ = d.store.DeleteLayer(d.staged.info.Digest.Encoded())
		}
		return err
	}
	return nil
}

// adopt makes the store take the files over, unless it has that layer already:
// a reproducible build may have been done before. Of two such builds that end at
// the same time, the second waits here and finds the first's layer.
func (d *storeImage) adopt() (bool, error) {
	root := d.store.GraphRoot()
	lock, err := os.Open(root)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return false, fmt.Errorf("locking %s: %w", root, err)
	}
	id := d.staged.info.Digest.Encoded()
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
func (d *storeImage) Close() error {
	var errs []error
	if d.staged != nil {
		errs = append(errs, d.staged.Close())
	}
	if d.own != "" {
		errs = append(errs, d.store.DeleteLayer(d.own))
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(append(errs, d.libraryImage.Close())...)
}
