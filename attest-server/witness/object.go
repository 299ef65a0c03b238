package witness

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
)

// Object is where a store with plain GET and PUT has an object of each log, best
// one that keeps versions.
type Object struct{ *Web }

// Show implements Witness. An Object does not sign.
func (o Object) Show(ctx context.Context, log Log, c checkpoint.Signed, first bool) ([]byte, error) {
	path := "/" + fileName(c.Origin, ".checkpoint")
	r, err := o.do(ctx, http.MethodGet, path, nil, checkpoint.MaxBytes)
	if err != nil {
		return nil, err
	}
	switch r.status {
	case http.StatusOK:
		if err := extends(ctx, log, c, r.body); err != nil {
			return nil, err
		}
		if seen, err := checkpoint.Peek(r.body); err == nil && seen == c.Checkpoint {
			return nil, nil
		}
	case http.StatusNotFound:
		if !first {
			return nil, fmt.Errorf("%w: there is no %s", ErrNothing, o.URL+path)
		}
	default:
		return nil, r.unexpected("reading the checkpoint it has")
	}
	if r, err = o.do(ctx, http.MethodPut, path, c.Note, checkpoint.MaxBytes); err != nil {
		return nil, err
	}
	if r.status/100 != 2 {
		return nil, r.unexpected("writing a checkpoint")
	}
	// What it does not show to us it will not show to anybody.
	if r, err = o.do(ctx, http.MethodGet, path, nil, checkpoint.MaxBytes); err != nil {
		return nil, err
	}
	if r.status != http.StatusOK {
		return nil, r.unexpected("reading the checkpoint that it took")
	}
	if !bytes.Equal(r.body, c.Note) { // another server's, at the same time?
		return nil, extends(ctx, log, c, r.body)
	}
	return nil, nil
}
