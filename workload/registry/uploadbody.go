package registry

import (
	"fmt"
	"hash"
	"io"
	"sync/atomic"
)

// tailWriter hashes all and passes on what follows the first skip bytes.
type tailWriter struct {
	w    *watchedWriter
	sum  hash.Hash
	skip int64 // still to be
	n    int64
}

func (t *tailWriter) Write(p []byte) (int, error) {
	t.sum.Write(p)
	t.n += int64(len(p))
	cut := min(t.skip, int64(len(p)))
	t.skip -= cut
	if int(cut) == len(p) {
		return len(p), nil
	}
	n, err := t.w.Write(p[cut:])
	return int(cut) + n, err
}

// sentBody is a request's body, for one use: the transport may want to send it
// again, with other credentials.
type sentBody struct {
	r      io.Reader
	sent   *atomic.Int64
	closed atomic.Bool
}

func (b *sentBody) Read(p []byte) (int, error) {
	if b.closed.Load() {
		return 0, fmt.Errorf("credentials have run out: %w", io.ErrUnexpectedEOF)
	}
	n, err := b.r.Read(p)
	b.sent.Add(int64(n))
	return n, err
}

// Close implements io.Closer.
func (b *sentBody) Close() error {
	b.closed.Store(true)
	return nil
}
