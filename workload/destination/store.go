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
//
// The store writes its records anew to add a layer, and also to remove one.
// A layer that takes the last free block would leave no room for either, so
// some is set aside before it is written.
type storeImage struct {
	*libraryImage
	store  storage.Store
	spare  *os.File // takes up the room that the store's records will need
	own    string   // id of our layer
	dir    string   // its files
	lock   *os.File // held while the build lives
	staged *stagedLayer
}

// spareBytes is room for the records of some thousand layers and images.
const spareBytes = 1 << 20

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

// sweepStore removes the layers of builds that no longer run. Where it cannot,
// whatever uses the store next will say why.
func sweepStore(store storage.Store) {
	guard, err := guardStore(store)
	if err != nil {
		return
	}
	defer guard.Close()
	layers, err := store.Layers()
	if err != nil {
		return
	}
	for _, l := range layers {
		if len(l.Names) == 1 && strings.HasPrefix(l.Names[0], scratch.Pattern) {
			sweepLayer(store, l.ID)
		}
	}
}

// sweepLayer removes a layer unless its build lives.
func sweepLayer(store storage.Store, id string) {
	dir, err := filesOf(store, id)
	if errors.Is(err, os.ErrNotExist) { // killed while it removed the layer itself
		_ = store.DeleteLayer(id)
	}
	if err != nil {
		return
	}
	if lock, err := scratch.Lock(filepath.Dir(dir)); err == nil {
		_ = discard(store, id, dir)
		_ = lock.Close()
	}
}

// discard removes a layer of ours. Its files go first: on a full disk the store
// could not even record that it is about to remove them.
func discard(store storage.Store, id, dir string) error {
	return errors.Join(os.RemoveAll(dir), store.DeleteLayer(id))
}

// guardStore waits for other builds that are making a layer, sweeping or
// publishing in this store: each of these looks first and acts then.
func guardStore(store storage.Store) (*os.File, error) {
	root := store.GraphRoot()
	guard, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(guard.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", root, err), guard.Close())
	}
	return guard, nil
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

// begin sets room aside, makes our layer and locks it.
func (d *storeImage) begin() (err error) {
	if d.spare, err = scratch.UnnamedFile(d.store.GraphRoot()); err != nil {
		return err
	}
	// Random, since some file systems compress.
	if _, err := io.CopyN(d.spare, rand.Reader, spareBytes); err != nil {
		return err
	}
	guard, err := guardStore(d.store) // until ours is locked it looks like a dead build's
	if err != nil {
		return err
	}
	defer guard.Close()
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

// giveRoom lets the store have the room that was set aside.
func (d *storeImage) giveRoom() error {
	if d.spare == nil {
		return nil
	}
	err := d.spare.Close()
	d.spare = nil
	return err
}

// Publish holds off other builds: one of the same image would otherwise use the
// layer while this takes it back.
func (d *storeImage) Publish(ctx context.Context, config, manifest []byte) error {
	guard, err := guardStore(d.store)
	if err != nil {
		return err
	}
	defer guard.Close()
	adopted, err := d.adopt()
	if err != nil {
		return fmt.Errorf("adding layer to local storage: %w", scratch.SpaceError(d.store.GraphRoot(), err))
	}
	if err := d.libraryImage.Publish(ctx, config, manifest); err != nil {
		if adopted { // refused if an image uses it meanwhile
			err = errors.Join(err, d.store.DeleteLayer(d.staged.info.Digest.Encoded()))
		}
		return err
	}
	return nil
}

// adopt makes the store take the files over, unless it has that layer already:
// a reproducible build may have been done before.
func (d *storeImage) adopt() (bool, error) {
	if err := d.giveRoom(); err != nil {
		return false, err
	}
	id := d.staged.info.Digest.Encoded()
	if _, err := d.store.Layer(id); err == nil {
		return false, nil
	} else if !errors.Is(err, storage.ErrLayerUnknown) {
		return false, err
	}
	_, err := d.store.ApplyStagedLayer(storage.ApplyStagedLayerOptions{
		ID: id, DiffOutput: d.staged.output(), DiffOptions: &drivers.ApplyDiffWithDifferOpts{},
	})
	return err == nil, err
}

// Close removes what the store did not take.
func (d *storeImage) Close() error {
	errs := []error{d.giveRoom()}
	if d.staged != nil {
		errs = append(errs, d.staged.Close())
	}
	if d.own != "" {
		errs = append(errs, discard(d.store, d.own, d.dir))
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	return errors.Join(append(errs, d.libraryImage.Close())...)
}
