// Package blob is what a blob of an image is to all who read or write one: a
// digest and a size, and a stream that ends in an error unless it has both.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/hint"
)

// Info names a blob.
type Info struct {
	Digest digest.Digest
	Size   int64
}

// Closers are closed together.
type Closers []io.Closer

// Close implements io.Closer.
func (cs Closers) Close() error {
	var errs []error
	for _, c := range cs {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// ErrDigest reports a blob that is not what its digest says.
var ErrDigest = errors.New("content does not match its digest")

// checkedReader is what NewReader returns.
type checkedReader struct {
	ctx  context.Context
	r    io.Reader
	want digest.Digest
	v    digest.Verifier
	n    int64
	size int64 // as declared, -1 if unknown
	end  error
}

// NewReader passes r through and fails, instead of with io.EOF, when what has
// passed does not have the digest and the size expected. A negative size is
// unknown.
func NewReader(ctx context.Context, r io.Reader, want digest.Digest, size int64) io.Reader {
	v := &checkedReader{ctx: ctx, r: r, want: want, size: size}
	if err := want.Validate(); err != nil {
		v.end = fmt.Errorf("digest %q: %w", want, err)
		return v
	}
	v.v = want.Verifier()
	return v
}

// Read implements io.Reader.
func (v *checkedReader) Read(p []byte) (int, error) {
	if v.end != nil {
		return 0, v.end
	}
	if err := v.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := v.r.Read(p)
	_, _ = v.v.Write(p[:n])
	v.n += int64(n)
	switch {
	case v.size >= 0 && v.n > v.size:
		v.end = fmt.Errorf("%w: more than the %d bytes that the manifest says", ErrDigest, v.size)
	case err == io.EOF && !v.v.Verified():
		v.end = hint.With(fmt.Errorf("%w %s after %d bytes: truncated or altered", ErrDigest, v.want, v.n), "fetch the source again")
	case err != nil:
		v.end = err
	}
	if v.end != nil && v.end != io.EOF {
		return 0, v.end
	}
	return n, v.end
}

// Counter reports how much has been read.
type Counter struct {
	R     io.Reader
	Count func(int64)
}

// Read implements io.Reader.
func (c *Counter) Read(p []byte) (int, error) {
	n, err := c.R.Read(p)
	c.Count(int64(n))
	return n, err
}

// ReadCloser reads one thing and closes another, which that is a part of.
type ReadCloser struct {
	io.Reader
	io.Closer
}
