package luks

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/ccrun/ccrun/secret"
)

// WriterOptions say how to write a disk. KDF and Rand are required.
type WriterOptions struct {
	KDF KDF
	// Rand gives salts and keyslot stripes. The same bytes give the same disk.
	Rand io.Reader
	// Workers encrypt in parallel; 0 means one per CPU.
	Workers int
}

// Writer turns plaintext into a LUKS2 disk, strictly in order and in bounded
// memory: a few interleave runs (4 MiB by default), whatever the disk's size.
type Writer struct {
	g       Geometry
	w       io.Writer
	cur     *run
	written int64 // plaintext bytes accepted
	closed  bool

	free  chan *run  // runs not in use
	order chan *run  // runs handed in, in order
	tasks chan piece // parts of those runs, for the workers
	done  chan struct{}
	err   atomic.Pointer[error] // first failure of the emitter
}

// run is one interleave run on its way through the writer.
type run struct {
	data    []byte // capacity: a full run
	tags    []byte
	sector  uint64 // of its first byte, in 512-byte units
	pending sync.WaitGroup
}

// piece is the part of a run that one worker encrypts.
type piece struct {
	run      *run
	from, to int
}

const (
	pieceBytes   = 128 << 10
	runsInFlight = 4
	plainRun     = 4 << 20 // run length when there are no tags to interleave
)

// NewWriter writes the header, and with integrity the superblock and the
// journal, to w and returns a Writer for exactly g.PlainBytes of plaintext.
// Close must be called, also after an error. vk must stay intact until then.
func NewWriter(w io.Writer, g Geometry, vk *VolumeKey, passphrase secret.Bytes, o WriterOptions) (*Writer, error) {
	return newWriter(w, g, vk, o, func() error { return writeFront(w, &g, vk, passphrase, o) })
}

// newWriter encrypts what follows front's output.
func newWriter(w io.Writer, g Geometry, vk *VolumeKey, o WriterOptions, front func() error) (*Writer, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	if err := vk.check(&g); err != nil {
		return nil, err
	}
	if o.Rand == nil {
		return nil, errors.New("disk writer without a source of randomness")
	}
	if err := front(); err != nil {
		return nil, err
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	d := &Writer{
		g: g, w: w,
		free:  make(chan *run, runsInFlight),
		order: make(chan *run, runsInFlight),
		tasks: make(chan piece, o.Workers),
		done:  make(chan struct{}),
	}
	for range runsInFlight {
		d.free <- &run{}
	}
	for range o.Workers {
		c, err := newSectorCipher(&g, vk)
		if err != nil {
			close(d.tasks)
			return nil, err
		}
		go d.work(c)
	}
	go d.emit()
	return d, nil
}

// writeFront emits all that precedes the first run.
func writeFront(w io.Writer, g *Geometry, vk *VolumeKey, passphrase secret.Bytes, o WriterOptions) error {
	bin := binaryHeader{headerBytes: minHeaderBytes, sequence: 1, uuid: g.UUID}
	keyslots := min(g.DataOffsetBytes-2*minHeaderBytes, maxKeyslotsBytes)
	b, err := newHeader(bin, keyslots, g, vk, passphrase, o.KDF, o.Rand)
	if err != nil {
		return err
	}
	if g.Integrity != nil {
		b = append(b, g.superblock()...)
	}
	if _, err := w.Write(b); err != nil {
		return fmt.Errorf("writing LUKS2 header: %w", err)
	}
	if g.Integrity != nil {
		return g.writeJournal(w)
	}
	return nil
}

// allocate gives r its buffers at first use: a small disk needs one run only.
func (d *Writer) allocate(r *run) {
	switch l := d.g.layout; {
	case r.data != nil:
	case d.g.Integrity == nil:
		r.data = make([]byte, 0, plainRun)
	default:
		r.data, r.tags = make([]byte, 0, l().runBytes), make([]byte, l().tagRunBytes)
	}
}

// Write accepts plaintext. It fails beyond g.PlainBytes.
func (d *Writer) Write(p []byte) (int, error) {
	n := 0
	for len(p) > 0 {
		room, err := d.room()
		if err != nil {
			return n, err
		}
		c := copy(room, p)
		d.advance(c)
		n += c
		p = p[c:]
	}
	return n, nil
}

// ReadFrom implements io.ReaderFrom, saving io.Copy's copy.
func (d *Writer) ReadFrom(r io.Reader) (int64, error) {
	var n int64
	for {
		if d.written == d.g.PlainBytes { // only then may r be at its end
			var one [1]byte
			if _, err := io.ReadFull(r, one[:]); err == nil {
				return n, d.tooMuch()
			} else if err != io.EOF {
				return n, err
			}
			return n, nil
		}
		room, err := d.room()
		if err != nil {
			return n, err
		}
		c, err := r.Read(room)
		d.advance(c)
		n += int64(c)
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// room is the unused rest of the current run.
func (d *Writer) room() ([]byte, error) {
	if d.closed {
		return nil, errors.New("write to a closed disk writer")
	}
	if err := d.err.Load(); err != nil {
		return nil, *err
	}
	if d.written == d.g.PlainBytes {
		return nil, d.tooMuch()
	}
	if d.cur == nil {
		d.cur = <-d.free
		d.allocate(d.cur)
		d.cur.data = d.cur.data[:0]
		d.cur.sector = uint64(d.written / dmSectorBytes)
	}
	have := len(d.cur.data)
	end := min(int64(cap(d.cur.data)), int64(have)+d.g.PlainBytes-d.written)
	return d.cur.data[have:end], nil
}

func (d *Writer) tooMuch() error {
	return fmt.Errorf("more than the %d bytes of content the disk was laid out for", d.g.PlainBytes)
}

// advance takes n bytes of room as written and hands in a full run.
func (d *Writer) advance(n int) {
	d.cur.data = d.cur.data[:len(d.cur.data)+n]
	d.written += int64(n)
	if len(d.cur.data) < cap(d.cur.data) && d.written < d.g.PlainBytes {
		return
	}
	r := d.cur
	d.cur = nil
	r.pending.Add((len(r.data) + pieceBytes - 1) / pieceBytes)
	d.order <- r
	for from := 0; from < len(r.data); from += pieceBytes {
		d.tasks <- piece{run: r, from: from, to: min(from+pieceBytes, len(r.data))}
	}
}

func (d *Writer) work(c sectorCipher) {
	for p := range d.tasks {
		var tags []byte
		if p.run.tags != nil {
			tags = p.run.tags[p.from/d.g.SectorBytes*d.g.Integrity.TagBytes:]
		}
		c.seal(p.run.data[p.from:p.to], tags, p.run.sector+uint64(p.from/dmSectorBytes), d.g.SectorBytes)
		p.run.pending.Done()
	}
}

// emit writes finished runs in order: tags, padded to their full length, then
// data. After a failure it only drains.
func (d *Writer) emit() {
	defer close(d.done)
	for r := range d.order {
		r.pending.Wait()
		if r.tags != nil {
			clear(r.tags[len(r.data)/d.g.SectorBytes*d.g.Integrity.TagBytes:])
			d.output(r.tags)
		}
		d.output(r.data)
		d.free <- r
	}
}

func (d *Writer) output(b []byte) {
	if d.err.Load() != nil {
		return
	}
	if _, err := d.w.Write(b); err != nil {
		err = fmt.Errorf("writing encrypted disk: %w", err)
		d.err.Store(&err)
	}
}

// Close waits for the last run and reports any failure, short input included.
func (d *Writer) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	close(d.tasks)
	close(d.order)
	<-d.done
	if err := d.err.Load(); err != nil {
		return *err
	}
	if d.written != d.g.PlainBytes {
		return fmt.Errorf("disk content ended after %d of %d bytes", d.written, d.g.PlainBytes)
	}
	return nil
}
