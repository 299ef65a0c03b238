package scratch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/workload/blob"
)

const (
	outChunk  = 4 << 20
	outChunks = 4
)

// Fill writes what write writes, size bytes, from offset on, and names them.
func (o *OutFile) Fill(ctx context.Context, offset, size int64, write blob.WriteFunc) (blob.Info, error) {
	sum := sha256.New()
	w := NewDirectWriter(o.File, offset, sum)
	err := write(ctx, w)
	n, werr := w.Finish()
	if werr != nil {
		return blob.Info{}, SpaceError(o.File.Name(), werr)
	}
	if err != nil {
		return blob.Info{}, err
	}
	if n != size {
		return blob.Info{}, fmt.Errorf("layer of %d bytes, expected %d", n, size)
	}
	return blob.Info{Digest: digest.NewDigest(digest.SHA256, sum), Size: n}, nil
}

// DirectWriter writes a file and hashes it in one or more ways. The writing
// and each of the hashes run at the same time, beside the caller. It writes
// around the page cache where it can: a disk image is not read again soon,
// copying it there costs more than hashing it, and the sync at the end would
// have to wait for all of it at once.
type DirectWriter struct {
	f      *os.File
	direct bool
	cur    *outPart
	off, n int64

	free     chan *outPart
	toHash   []chan *outPart // to each of the sums
	toDisk   chan *outPart
	finished sync.WaitGroup

	mu  sync.Mutex
	err error
}

// outPart is a piece of the file; it is free again when all have had it.
type outPart struct {
	b     []byte
	off   int64
	users sync.WaitGroup
}

// NewDirectWriter writes to f from offset on; sums are the caller's again
// after Finish.
func NewDirectWriter(f *os.File, offset int64, sums ...hash.Hash) *DirectWriter {
	w := &DirectWriter{
		f: f, off: offset, direct: setDirect(f, true) == nil,
		free: make(chan *outPart, outChunks), toDisk: make(chan *outPart, outChunks),
	}
	for range outChunks {
		w.free <- &outPart{}
	}
	for _, sum := range sums {
		c := make(chan *outPart, outChunks)
		w.toHash = append(w.toHash, c)
		w.finished.Go(func() {
			for p := range c {
				sum.Write(p.b)
				p.users.Done()
			}
		})
	}
	w.finished.Go(w.store)
	return w
}

// Write implements io.Writer.
func (w *DirectWriter) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		if err := w.need(); err != nil {
			return n, err
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

// ReadFrom implements io.ReaderFrom, without a copy on the way.
func (w *DirectWriter) ReadFrom(r io.Reader) (int64, error) {
	var n int64
	for {
		if err := w.need(); err != nil {
			return n, err
		}
		have := len(w.cur.b)
		k, err := r.Read(w.cur.b[have:cap(w.cur.b)])
		w.cur.b = w.cur.b[:have+k]
		n, w.off, w.n = n+int64(k), w.off+int64(k), w.n+int64(k)
		if len(w.cur.b) == cap(w.cur.b) {
			w.hand()
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// need makes cur a part with room.
func (w *DirectWriter) need() error {
	if w.cur != nil {
		return nil
	}
	if err := w.failure(); err != nil {
		return err
	}
	w.cur = <-w.free
	if w.cur.b == nil {
		w.cur.b = make([]byte, 0, outChunk)
	}
	w.cur.b, w.cur.off = w.cur.b[:0], w.off
	return nil
}

func (w *DirectWriter) hand() {
	p := w.cur
	w.cur = nil
	p.users.Add(1 + len(w.toHash))
	for _, c := range w.toHash {
		c <- p
	}
	w.toDisk <- p
}

func (w *DirectWriter) store() {
	for p := range w.toDisk {
		if w.failure() == nil {
			w.storePart(p)
		}
		p.users.Done()
		p.users.Wait()
		w.free <- p
	}
}

func (w *DirectWriter) storePart(p *outPart) {
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

func (w *DirectWriter) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *DirectWriter) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Finish waits until all is written and hashed, and returns how many bytes were written.
func (w *DirectWriter) Finish() (int64, error) {
	if w.cur != nil {
		w.hand()
	}
	for _, c := range w.toHash {
		close(c)
	}
	close(w.toDisk)
	w.finished.Wait()
	err := w.failure()
	if w.direct {
		err = errors.Join(err, setDirect(w.f, false))
	}
	return w.n, err
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
