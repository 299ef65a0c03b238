package scratch

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Spool is scratch space that never holds plaintext: a file without a name,
// encrypted with AES-256-CTR under a key that exists only in this process. A
// kill leaves neither a file nor anything readable in the blocks it used.
type Spool struct {
	f     *os.File
	block cipher.Block
	base  int64 // where in f it starts
	size  int64
}

// NewSpool makes an empty spool in directory dir.
func NewSpool(dir string) (*Spool, error) {
	f, err := UnnamedFile(dir)
	if err != nil {
		return nil, fmt.Errorf("making scratch file: %w", SpaceError(dir, err))
	}
	var spoolKey [32]byte
	if _, err := io.ReadFull(rand.Reader, spoolKey[:]); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	block, err := aes.NewCipher(spoolKey[:])
	clear(spoolKey[:])
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return SpoolAt(f, block, 0, 0), nil
}

// SpoolAt is a spool in a file of the caller's, whose first base bytes are
// something else: size bytes, encrypted by a cipher with a key of its own.
func SpoolAt(f *os.File, block cipher.Block, base, size int64) *Spool {
	return &Spool{f: f, block: block, base: base, size: size}
}

// UnnamedFile is a file in dir that is gone when it is closed. A file system
// that makes none without a name gives one, whose name goes before anything is
// written to it.
func UnnamedFile(dir string) (*os.File, error) {
	f, temp, err := unnamed(dir)
	if err != nil || temp == "" {
		return f, err
	}
	if err := os.Remove(temp); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

const spoolBuffer = 1 << 20

// SpoolWriter fills a spool, once.
type SpoolWriter struct {
	s      *Spool
	stream cipher.Stream
	buf    []byte
}

// Writer fills an empty spool.
func (s *Spool) Writer() *SpoolWriter {
	return &SpoolWriter{s, s.stream(0), make([]byte, 0, spoolBuffer)}
}

// Write implements io.Writer.
func (w *SpoolWriter) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return n, err
			}
		}
		have := len(w.buf)
		k := min(cap(w.buf)-have, len(p))
		w.buf = w.buf[:have+k]
		w.stream.XORKeyStream(w.buf[have:], p[:k])
		n, p = n+k, p[k:]
	}
	w.s.size += int64(n)
	return n, nil
}

func (w *SpoolWriter) flush() error {
	_, err := w.s.f.Write(w.buf)
	w.buf = w.buf[:0]
	return SpaceError(w.s.f.Name(), err)
}

// Close writes what is left of it; the spool stays.
func (w *SpoolWriter) Close() error { return w.flush() }

// stream is the key stream from block number n on; the counter starts at
// zero, which is safe because every spool has a key of its own.
func (s *Spool) stream(n uint64) cipher.Stream {
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], n)
	return cipher.NewCTR(s.block, iv[:])
}

// Reader reads the spool from its start. Readers are independent of each
// other and seekable.
func (s *Spool) Reader() *SpoolReader {
	return &SpoolReader{s: s, stream: s.stream(0)}
}

// LastReader is a reader that gives back the space of what it has passed, so
// that spool and output together take little more than the output: none of
// the spool can be read again.
func (s *Spool) LastReader() *SpoolReader {
	return &SpoolReader{s: s, stream: s.stream(0), last: true}
}

// SizeBytes is how much has been written.
func (s *Spool) SizeBytes() int64 { return s.size }

// ReadAt implements io.ReaderAt.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	r := s.Reader()
	if _, err := r.Seek(off, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// Close gives the space back. The key goes with the process' memory. A nil
// spool has neither.
func (s *Spool) Close() error {
	if s == nil {
		return nil
	}
	return s.f.Close()
}

// SpoolReader decrypts a spool.
type SpoolReader struct {
	s      *Spool
	stream cipher.Stream
	off    int64
	last   bool
	freed  int64
}

const freeStep = 4 << 20

// free punches a hole up to where the reader is. Where that cannot be done
// the space is held until Close.
func (r *SpoolReader) free() {
	end := r.off &^ (1<<20 - 1)
	if !r.last || end-r.freed < freeStep {
		return
	}
	c, err := r.s.f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		_ = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, r.freed, end-r.freed)
	})
	r.freed = end
}

// Read implements io.Reader.
func (r *SpoolReader) Read(p []byte) (int, error) {
	r.free()
	if r.off >= r.s.size {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), r.s.size-r.off)]
	n, err := r.s.f.ReadAt(p, r.s.base+r.off)
	r.stream.XORKeyStream(p[:n], p[:n])
	r.off += int64(n)
	if err == io.EOF && r.off < r.s.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Seek implements io.Seeker, so that a reader of tar headers skips contents.
func (r *SpoolReader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.off
	case io.SeekEnd:
		offset += r.s.size
	}
	if offset < 0 {
		return 0, errors.New("seeking before the start of the spool")
	}
	r.off = offset
	r.stream = r.s.stream(uint64(offset) / aes.BlockSize)
	var skip [aes.BlockSize]byte
	r.stream.XORKeyStream(skip[:offset%aes.BlockSize], skip[:offset%aes.BlockSize])
	return offset, nil
}

// Close implements io.Closer; the spool stays.
func (r *SpoolReader) Close() error { return nil }
