package sealedlog

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"
)

// FlushAfter is how long a frame waits for more to come.
const FlushAfter = 200 * time.Millisecond

// joinWithin is how far apart writes of one stream may be to become one record.
const joinWithin = 10 * time.Millisecond

// The line with the key is repeated, so that a log of which the host keeps only
// the end can be read: after this much of other lines, and no more often than
// costs 1/keyShare of the log.
const (
	keyEvery = 64 << 10
	keyShare = 16
)

// errEnded is of a write after Close.
var errEnded = errors.New("the log has ended")

// A Writer seals one boot's log. It holds one frame in memory, and waits for the
// writer below it as long as that takes.
type Writer struct {
	mu   sync.Mutex
	to   io.Writer
	aead cipher.AEAD
	now  func() time.Time

	boot    string
	keyLine []byte
	toKey   int // bytes until the line with the key comes again

	seq    uint64
	before chain
	plain  []byte // the frame under way; empty: none
	last   int    // where its last record begins, which further bytes may join
	// sealed and text are memory to use again, for the frame's body and line.
	sealed, text []byte
	dirty        chan struct{}
	err          error
}

// NewWriter begins the log of boot b on to. now is the guest's clock.
func NewWriter(b *Boot, to io.Writer, now func() time.Time) (*Writer, error) {
	a, err := newAEAD(b.Key)
	if err != nil {
		return nil, err
	}
	l, err := parseLine(string(bytes.TrimSuffix(b.Line, []byte{'\n'})))
	if err != nil || !l.isKey {
		return nil, errors.Join(errNoLine, err)
	}
	return &Writer{
		to: to, aead: a, now: now, boot: l.boot, keyLine: bytes.Clone(b.Line),
		plain: make([]byte, 0, frameBytes), dirty: make(chan struct{}, 1),
	}, nil
}

// Stream writes one of the workload's streams.
func (w *Writer) Stream(k Kind) io.Writer { return stream{w, k} }

type stream struct {
	w *Writer
	k Kind
}

func (s stream) Write(p []byte) (int, error) { return s.w.write(s.k, p) }

// Note says something of the agent's.
func (w *Writer) Note(text string) error {
	_, err := w.write(Note, []byte(text))
	return err
}

// Dirty has a value when something waits to be flushed, which the caller does
// FlushAfter later.
func (w *Writer) Dirty() <-chan struct{} { return w.dirty }

// Flush writes what there is.
func (w *Writer) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

// Close writes what there is and the end of the log.
func (w *Writer) Close(e End) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	const most = maxContents - recordHead
	if len(b) > most {
		b, _ = json.Marshal(End{Status: e.Status, Error: cut(e.Error, most/8)}) // JSON makes at most 6 bytes of one
	}
	if len(w.plain)+recordHead+len(b) > frameBytes {
		_ = w.flush()
	}
	w.begin(Last, len(b))
	w.plain = append(w.plain, b...)
	err = w.flush()
	if w.err == nil {
		w.err = errEnded
	}
	return err
}

// cut is the beginning of s, of at most n bytes.
func cut(s string, n int) string { return s[:min(n, len(s))] }

func (w *Writer) write(k Kind, p []byte) (done int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for done < len(p) && w.err == nil {
		if n := w.join(k, p[done:]); n > 0 {
			done += n
			continue
		}
		if len(w.plain)+recordHead >= frameBytes {
			_ = w.flush()
			continue
		}
		n := min(len(p)-done, frameBytes-max(len(w.plain), chainBytes)-recordHead)
		w.begin(k, n)
		w.plain = append(w.plain, p[done:done+n]...)
		done += n
	}
	return done, w.err
}

// begin begins a record of n bytes, which the caller appends.
func (w *Writer) begin(k Kind, n int) {
	if len(w.plain) == 0 {
		w.plain = w.plain[:chainBytes] // the chain is known when it is sealed
		select {
		case w.dirty <- struct{}{}:
		default:
		}
	}
	w.last = len(w.plain)
	w.plain = appendRecord(w.plain, k, w.now(), n)
}

// join adds to the last record what belongs to it: a program that writes byte by
// byte is to cost no header for each.
func (w *Writer) join(k Kind, p []byte) int {
	n := min(len(p), frameBytes-len(w.plain))
	if len(w.plain) == 0 || n == 0 || Kind(w.plain[w.last]) != k || k == Note || k == Last {
		return 0
	}
	at := time.Unix(0, int64(binary.BigEndian.Uint64(w.plain[w.last+1:])))
	if age := w.now().Sub(at); age < 0 || age > joinWithin {
		return 0
	}
	w.plain = append(w.plain, p[:n]...)
	binary.BigEndian.PutUint32(w.plain[w.last+9:], uint32(len(w.plain)-w.last-recordHead))
	return n
}

// flush writes the frame under way, and before it the line with the key if that
// is due. After an error nothing more is written: the reader could not tell a
// frame that was lost here from one that the host left out.
func (w *Writer) flush() error {
	if w.err != nil || len(w.plain) == 0 {
		return w.err
	}
	if w.toKey <= 0 {
		w.toKey = max(keyEvery, keyShare*len(w.keyLine))
		if _, w.err = w.to.Write(w.keyLine); w.err != nil {
			return w.err
		}
	}
	w.text = w.seal(w.text[:0])
	w.toKey -= len(w.text)
	_, w.err = w.to.Write(w.text)
	return w.err
}

// seal makes the frame under way a line, after to.
func (w *Writer) seal(to []byte) []byte {
	copy(w.plain, w.before[:])
	n := len(w.plain)
	w.plain = w.plain[:(n+padTo-1)/padTo*padTo]
	clear(w.plain[n:])
	var l line
	l, w.before = sealFrame(w.sealed, w.aead, w.boot, w.seq, w.plain)
	w.sealed, w.plain = l.body, w.plain[:0]
	w.seq++
	return l.appendTo(to)
}
