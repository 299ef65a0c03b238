package source

import (
	"crypto/aes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/scratch"
)

// LayerCache keeps the layers of one build for the next: what was fetched,
// decompressed and verified need not be again. Dir may be on any disk, since
// it holds ciphertext only; the key is in KeyDir, which must be in memory, so
// that a disk that is stolen, sold or backed up shows nothing.
type LayerCache struct {
	Dir      string
	KeyDir   string // empty: XDG_RUNTIME_DIR, or /run for root
	MaxBytes int64  // above, what was not used for longest is removed; 0: 20 GiB
}

// CacheKeyFile is the file in LayerCache.KeyDir with the key.
const CacheKeyFile = "ccrun-layer-cache.key"

const (
	cacheMagic     = "ccrun layer cache v1\n"
	cacheHeadBytes = 4096 // then the layer, AES-256-CTR
	cacheSaltBytes = 32
	cacheSuffix    = ".layer"
	defaultBytes   = 20 << 30
)

// openCache is an opened LayerCache.
type openCache struct {
	dir      string
	maxBytes int64
	key      [32]byte // CacheKeyFile's
}

func (o *LayerCache) open() (*openCache, error) {
	c := &openCache{dir: o.Dir, maxBytes: o.MaxBytes}
	if c.maxBytes <= 0 {
		c.maxBytes = defaultBytes
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fmt.Errorf("making layer cache: %w", err)
	}
	cacheKey, err := readCacheKey(o.KeyDir)
	if err != nil {
		return nil, fmt.Errorf("opening layer cache: %w", err)
	}
	c.key = [32]byte(cacheKey)
	return c, nil
}

// readCacheKey reads the key, or makes one.
func readCacheKey(dir string) ([]byte, error) {
	if dir == "" {
		dir = os.Getenv("XDG_RUNTIME_DIR")
	}
	if dir == "" && os.Geteuid() == 0 {
		dir = "/run"
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return nil, hint.With(fmt.Errorf("directory for its key: %q is not in memory", dir), "let XDG_RUNTIME_DIR name a directory on a tmpfs, or leave --layer-cache out")
	}
	path := filepath.Join(dir, CacheKeyFile)
	cacheKey := make([]byte, 32)
	if _, err := io.ReadFull(rand.Reader, cacheKey); err != nil {
		return nil, err
	}
	if err := scratch.IgnoreExist(scratch.WriteFile(path, cacheKey, 0o600)); err != nil {
		return nil, fmt.Errorf("making its key: %w", err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if own, ok := st.Sys().(*syscall.Stat_t); !ok || !st.Mode().IsRegular() || st.Mode().Perm()&0o077 != 0 || int(own.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s must be a file that only its owner, this user, can read", path)
	}
	if cacheKey, err = bounded.File(path, 32); err == nil && len(cacheKey) != 32 {
		err = fmt.Errorf("%s has %d bytes, expected 32", path, len(cacheKey))
	}
	return cacheKey, err
}

func (c *openCache) path(layer digest.Digest) string {
	return filepath.Join(c.dir, layer.Encoded()+cacheSuffix)
}

// spool is a file's content, under a key of its own: salts are random, so no
// two files ever share key stream, whatever they hold.
func (c *openCache) spool(f *os.File, salt []byte, size int64) (*scratch.Spool, error) {
	layerKey, err := hkdf.Key(sha256.New, c.key[:], salt, cacheMagic+"content", 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(layerKey)
	clear(layerKey)
	return scratch.SpoolAt(f, block, cacheHeadBytes, size), err
}

// head is a file's first bytes: magic, salt, size, and a MAC that ties them to
// the layer and to the key.
func (c *openCache) head(layer digest.Digest, salt []byte, size int64) []byte {
	b := append([]byte(cacheMagic), salt...)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	mac := hmac.New(sha256.New, c.key[:])
	mac.Write(b)
	mac.Write([]byte(layer))
	return mac.Sum(b)
}

// find returns a layer that was kept, or nil. What it reads from it must still
// be verified: others than this program may have written to it. A file whose
// key is gone is removed.
func (c *openCache) find(layer digest.Digest) *scratch.Spool {
	f, err := os.Open(c.path(layer))
	if err != nil {
		return nil
	}
	const saltEnd = len(cacheMagic) + cacheSaltBytes
	b := make([]byte, saltEnd+8+sha256.Size)
	if _, err := io.ReadFull(f, b); err == nil {
		salt, size := b[len(cacheMagic):saltEnd], int64(binary.LittleEndian.Uint64(b[saltEnd:]))
		if hmac.Equal(b, c.head(layer, salt, size)) {
			if s, err := c.spool(f, salt, size); err == nil {
				now := time.Now()
				_ = os.Chtimes(f.Name(), now, now) // it was used
				return s
			}
		}
	}
	_ = f.Close()
	c.remove(layer)
	return nil
}

func (c *openCache) remove(layer digest.Digest) { _ = os.Remove(c.path(layer)) }

// cacheEntry is a layer on its way into the cache: a file without a name.
type cacheEntry struct {
	out  *scratch.OutFile
	salt []byte
}

func (c *openCache) create() (*cacheEntry, *scratch.Spool, error) {
	e := &cacheEntry{salt: make([]byte, cacheSaltBytes)}
	if _, err := io.ReadFull(rand.Reader, e.salt); err != nil {
		return nil, nil, err
	}
	var err error
	if e.out, err = scratch.NewOutFile(c.dir); err != nil {
		return nil, nil, err
	}
	s, err := c.spool(e.out.File, e.salt, 0)
	if err == nil {
		_, err = e.out.File.Seek(cacheHeadBytes, io.SeekStart)
	}
	if err != nil {
		return nil, nil, errors.Join(err, e.out.Close())
	}
	return e, s, nil
}

// publish names a layer that has been verified, and makes room for it.
func (c *openCache) publish(e *cacheEntry, layer digest.Digest, size int64) error {
	if _, err := e.out.File.WriteAt(c.head(layer, e.salt, size), 0); err != nil {
		return err
	}
	// Not synced: what a power cut spoils, the next build's digest finds.
	if err := scratch.IgnoreExist(e.out.Link(c.path(layer))); err != nil {
		return err
	}
	return c.evict()
}

// evict removes what was used least recently until the rest fits.
func (c *openCache) evict() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var files []os.FileInfo
	var total int64
	for _, e := range entries {
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && strings.HasSuffix(e.Name(), cacheSuffix) {
			files, total = append(files, st), total+st.Size()
		}
	}
	slices.SortFunc(files, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		if total <= c.maxBytes {
			break
		}
		if err := os.Remove(filepath.Join(c.dir, f.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		total -= f.Size()
	}
	return nil
}
