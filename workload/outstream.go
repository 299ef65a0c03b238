package workload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

const (
	outChunk  = 4 << 20
	outChunks = 4
)

// fill writes what write writes, size bytes, from offset on and returns what
// they are called.
func (o *outFile) fill(ctx context.Context, offset, size int64, write layerFunc) (blobInfo, error) {
	w := newHashingWriter(o.f, offset)
	err := write(ctx, w)
	sum, n, werr := w.close()
	if werr != nil {
		return blobInfo{}, spaceError(o.f.Name(), werr)
	}
	if err != nil {
		return blobInfo{}, err
	}
	if n != size {
		return blobInfo{}, fmt.Errorf("layer of %d bytes, expected %d", n, size)
	}
	return blobInfo{digest.NewDigest(digest.SHA256, sum), n}, nil
}

// hashingWriter writes a file and hashes it, at the same time, each behind
// the caller's back. It goes around the page cache where it can: a disk image
// is not read again soon, copying it there costs more than hashing it, and
// the sync at the end would have to wait for all of it at once.
type hashingWriter struct {
	f      *os.File
	direct bool
	cur    *outPart
	off, n int64

	free     chan *outPart
	toHash   chan *outPart
	toDisk   chan *outPart
	finished sync.WaitGroup
	sum      hash.Hash

	mu  sync.Mutex
	err error
}

// outPart is a piece of the file; it is free again when both have had it.
type outPart struct {
	b     []byte
	off   int64
	users sync.WaitGroup
}

func newHashingWriter(f *os.File, offset int64) *hashingWriter {
	w := &hashingWriter{
		f: f, off: offset, sum: sha256.New(), direct: setDirect(f, true) == nil,
		free: make(chan *outPart, outChunks), toHash: make(chan *outPart, outChunks), toDisk: make(chan *outPart, outChunks),
	}
	for range outChunks {
		w.free <- &outPart{b: make([]byte, 0, outChunk)}
	}
	w.finished.Add(2)
	go w.hash()
	go w.store()
	return w
}

// Write implements io.Writer.
func (w *hashingWriter) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		if w.cur == nil {
			if err := w.failure(); err != nil {
				return n, err
			}
			w.cur = <-w.free
			w.cur.b, w.cur.off = w.cur.b[:0], w.off
		}
		have := len(w.cur.b)
		k := copy(w.cur.b[have:cap(w.cur.b)], p)
		w.cur.b = w.cur.b[:have+k]
		n, p = n+k, p[k:]
		w.off, w.n = w.off+int64(k), w.n+int64(k)
		if len(w.cur.b) == cap(w.cur.b) {
			w.hand()
		}
	}
	return n, nil
}

func (w *hashingWriter) hand() {
	p := w.cur
	w.cur = nil
	p.users.Add(2)
	w.toHash <- p
	w.toDisk <- p
}

func (w *hashingWriter) hash() {
	defer w.finished.Done()
	for p := range w.toHash {
		w.sum.Write(p.b)
		p.users.Done()
	}
}

func (w *hashingWriter) store() {
	defer w.finished.Done()
	for p := range w.toDisk {
		if w.failure() == nil {
			w.storePart(p)
		}
		p.users.Done()
		p.users.Wait()
		w.free <- p
	}
}

func (w *hashingWriter) storePart(p *outPart) {
	if w.direct && len(p.b) < outChunk { // the last one, of any length
		w.direct = false
		w.fail(setDirect(w.f, false))
	}
	_, err := w.f.WriteAt(p.b, p.off)
	if w.direct && errors.Is(err, unix.EINVAL) { // the file system wants another alignment
		w.direct = false
		if err = setDirect(w.f, false); err == nil {
			_, err = w.f.WriteAt(p.b, p.off)
		}
	}
	w.fail(err)
}

func (w *hashingWriter) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *hashingWriter) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// close waits for both and returns the hash and how many bytes it is of.
func (w *hashingWriter) close() (hash.Hash, int64, error) {
	if w.cur != nil {
		w.hand()
	}
	close(w.toHash)
	close(w.toDisk)
	w.finished.Wait()
	err := w.failure()
	if w.direct {
		err = errors.Join(err, setDirect(w.f, false))
	}
	return w.sum, w.n, err
}

// setDirect switches O_DIRECT on or off. Some file systems have none.
func setDirect(f *os.File, on bool) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	cerr := c.Control(func(fd uintptr) {
		var flags int
		if flags, err = unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil {
			return
		}
		if flags &^= unix.O_DIRECT; on {
			flags |= unix.O_DIRECT
		}
		_, err = unix.FcntlInt(fd, unix.F_SETFL, flags)
	})
	return errors.Join(cerr, err)
}
