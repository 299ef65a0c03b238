package answer

import (
	"io"
	"net/http"
	"net/netip"

	"github.com/ccrun/ccrun/attest-server/budget"
	"github.com/ccrun/ccrun/attest-server/kbs"
)

// chunkBytes is how much of a body of unknown length is reserved at a time.
const chunkBytes = 64 << 10

// intake bounds the requests under way, and the memory for their bodies.
type intake struct {
	bodies   *budget.Bytes[netip.Prefix]
	requests chan struct{}
}

func newIntake(bytes int64, requests int) *intake {
	return &intake{bodies: budget.NewBytes[netip.Prefix](bytes), requests: make(chan struct{}, requests)}
}

// serve has next answer a request whose body is reserved while it is read, and
// until it is answered. shared is as budget.Bytes has it.
func (i *intake) serve(next http.Handler, w http.ResponseWriter, r *http.Request, from netip.Prefix, shared bool) error {
	select {
	case i.requests <- struct{}{}:
		defer func() { <-i.requests }()
	default:
		return budget.Busy("too many requests are under way")
	}
	if r.Body == nil || r.Body == http.NoBody {
		next.ServeHTTP(w, r)
		return nil
	}
	b := &body{ReadCloser: r.Body, length: r.ContentLength, take: func(had, n int64) error { return i.bodies.Take(from, shared, had, n) }}
	defer func() { i.bodies.Give(from, b.reserved) }()
	r.Body = b
	next.ServeHTTP(w, r)
	return nil
}

// body is one that has memory reserved before any of it is read.
type body struct {
	io.ReadCloser
	length         int64 // -1: unknown
	reserved, read int64
	take           func(had, n int64) error
}

// reserve takes memory for what comes next: the whole of it, if its length is
// known.
func (b *body) reserve() error {
	if b.read < b.reserved {
		return nil
	}
	n := b.length - b.read
	if b.length < 0 {
		n = chunkBytes
	}
	if n <= 0 {
		return nil // at its end
	}
	if err := b.take(b.reserved, n); err != nil {
		return err
	}
	b.reserved += n
	return nil
}

// Read implements io.Reader. The error may be a refusal.
func (b *body) Read(p []byte) (int, error) {
	if err := b.reserve(); err != nil {
		return 0, err
	}
	if left := b.reserved - b.read; left > 0 && int64(len(p)) > left {
		p = p[:left]
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	return n, err
}

// maxDrain is how much of a refused request's body is read all the same.
const maxDrain = kbs.MaxAttestBody

// drain reads some of a request's body into nothing, which takes no memory.
// Closing with a body half read resets the connection, and the client may never
// see why.
func drain(r *http.Request) {
	var rest io.Reader = r.Body
	if b, ok := r.Body.(*body); ok {
		rest = b.ReadCloser
	}
	_, _ = io.CopyN(io.Discard, rest, maxDrain)
}
