package source

import (
	"errors"
	"io"
)

// layerReader reads a layer in place.
type layerReader struct {
	l *Layer
	v io.Reader // which verifies
	c io.Closer
}

func (r *layerReader) Read(p []byte) (int, error) {
	n, err := r.v.Read(p)
	if err != nil && err != io.EOF {
		err = r.l.Wrap(err)
	}
	return n, err
}

// Close reads on to the end of the blob, which a reader of tar entries does
// not reach, so that a changed blob never goes unnoticed.
func (r *layerReader) Close() error {
	_, err := io.Copy(io.Discard, r.v)
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	if err != nil {
		r.l.bad = err
	} else {
		r.l.whole = true
	}
	return errors.Join(err, r.c.Close())
}
