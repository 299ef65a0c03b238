package luks

import (
	"fmt"
	"io"
	"sync"
)

// NewReader opens a disk in user space, for inspection and tests: reads are
// verified and decrypted. It fails a whole read with ErrIntegrity rather than
// return a byte of a sector that does not verify. Safe for concurrent use.
func NewReader(r io.ReaderAt, g Geometry, vk *VolumeKey) (io.ReaderAt, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	c, err := newSectorCipher(&g, vk)
	if err != nil {
		return nil, err
	}
	return &reader{r: r, g: g, c: c}, nil
}

type reader struct {
	r  io.ReaderAt
	g  Geometry
	mu sync.Mutex // guards c
	c  sectorCipher
}

const readChunk = 1 << 20

// ReadAt implements io.ReaderAt on the plaintext.
func (d *reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	n := 0
	for n < len(p) {
		if off >= d.g.PlainBytes {
			return n, io.EOF
		}
		b, skip, err := d.chunk(off, int64(len(p)-n))
		if err != nil {
			return n, err
		}
		c := copy(p[n:], b[skip:])
		n += c
		off += int64(c)
	}
	return n, nil
}

// chunk decrypts whole sectors from the one that holds off, up to want bytes
// but not beyond a run of tags, and says where off is in them.
func (d *reader) chunk(off, want int64) ([]byte, int64, error) {
	sb := int64(d.g.SectorBytes)
	start := off / sb * sb
	end := min(roundUp(off+min(want, readChunk), sb), d.g.PlainBytes)
	at, tags := d.g.DataOffsetBytes+start, []byte(nil)
	if d.g.Integrity != nil {
		l := d.g.layout()
		end = min(end, (start/l.runBytes+1)*l.runBytes)
		at = d.g.DataOffsetBytes + l.dataOffset(start)
		tags = make([]byte, (end-start)/sb*int64(d.g.Integrity.TagBytes))
		if err := readAt(d.r, tags, d.g.DataOffsetBytes+l.tagOffset(start)); err != nil {
			return nil, 0, fmt.Errorf("reading integrity tags: %w", err)
		}
	}
	b := make([]byte, end-start)
	if err := readAt(d.r, b, at); err != nil {
		return nil, 0, fmt.Errorf("reading encrypted disk: %w", err)
	}
	return b, off - start, d.open(b, tags, start)
}

func (d *reader) open(b, tags []byte, start int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	sb := d.g.SectorBytes
	for i := 0; i < len(b); i += sb {
		var tag []byte
		if tags != nil {
			tag = tags[i/sb*d.g.Integrity.TagBytes:][:d.g.Integrity.TagBytes]
		}
		if err := d.c.open(b[i:i+sb], tag, uint64(start/dmSectorBytes)+uint64(i/dmSectorBytes)); err != nil {
			return err
		}
	}
	return nil
}
