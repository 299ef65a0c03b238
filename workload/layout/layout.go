// Package layout adds to OCI image layouts on disk. The library's writer leaves
// a named partial blob when it is killed, and loses an image when two builds
// add to one layout at once; this one does neither.
package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/workload/scratch"
)

// maxIndexBytes bounds index.json of a layout that is added to.
const maxIndexBytes = 4 << 20

// Version is the content of the file oci-layout.
func Version() []byte {
	return []byte(`{"imageLayoutVersion":"` + imgspec.ImageLayoutVersion + `"}`)
}

// NewIndex is an index without manifests.
func NewIndex() *imgspec.Index {
	return &imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex}
}

// BlobPath is where the layout in dir has a blob.
func BlobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, imgspec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// ReadIndex reads the index of the layout in dir.
func ReadIndex(dir string) (*imgspec.Index, error) {
	path := filepath.Join(dir, imgspec.ImageIndexFile)
	b, err := bounded.File(path, maxIndexBytes)
	if err != nil {
		return nil, err
	}
	index := NewIndex()
	if err := json.Unmarshal(b, index); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return index, nil
}

// Locked is a layout that nobody else adds to.
type Locked struct {
	dir  string
	lock *os.File
}

// Lock waits until nobody else adds to the layout in dir, which it makes if it
// is not there.
func Lock(dir string) (*Locked, error) {
	if err := os.MkdirAll(filepath.Join(dir, imgspec.ImageBlobsDir, digest.SHA256.String()), 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", dir, err), lock.Close())
	}
	return &Locked{dir, lock}, nil
}

// Close lets others add.
func (l *Locked) Close() error { return l.lock.Close() }

// PutFile gives f, a blob with that digest, its name.
func (l *Locked) PutFile(f *scratch.OutFile, d digest.Digest) error {
	return scratch.IgnoreExist(f.Publish(BlobPath(l.dir, d), 0o644))
}

// Put adds small blobs.
func (l *Locked) Put(blobs ...[]byte) error {
	for _, b := range blobs {
		if err := scratch.IgnoreExist(scratch.WriteFile(BlobPath(l.dir, digest.FromBytes(b)), b, 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// WriteIndex makes what was added visible.
func (l *Locked) WriteIndex(index *imgspec.Index) error {
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := scratch.IgnoreExist(scratch.WriteFile(filepath.Join(l.dir, imgspec.ImageLayoutFile), Version(), 0o644)); err != nil {
		return err
	}
	return scratch.ReplaceFile(filepath.Join(l.dir, imgspec.ImageIndexFile), b, 0o644)
}
