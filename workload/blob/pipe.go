package blob

import (
	"context"
	"errors"
	"io"
)

// WriteFunc writes a whole layer.
type WriteFunc func(context.Context, io.Writer) error

// Pipe lets consume read what write writes.
func Pipe(ctx context.Context, write WriteFunc, consume func(io.Reader) (Info, error)) (Info, error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(inner, pw)
		pw.CloseWithError(err) // nil: io.EOF
		done <- err
	}()
	b, err := consume(pr)
	if err != nil {
		cancel()
	}
	pr.CloseWithError(errStopped)
	werr := <-done
	ours := errors.Is(werr, errStopped) || errors.Is(werr, context.Canceled) && ctx.Err() == nil
	if werr != nil && (err == nil || !ours) {
		err = werr // says more than what the library made of it
	}
	return b, err
}

// errStopped is what write sees when consume has returned early.
var errStopped = errors.New("destination stopped reading")
