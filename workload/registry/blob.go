package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/sirupsen/logrus"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
)

// resumedBlob reads a blob from a registry that may break off or stall. The
// library resumes by Range where the registry has it; what it gives up on is
// fetched again from the start, and what was delivered already is skipped. That
// both times it was the same blob need not be checked here: whoever reads it
// checks its digest.
type resumedBlob struct {
	ctx  context.Context
	src  types.ImageSource
	info types.BlobInfo
	p    Patience

	rc       io.ReadCloser
	watch    *watchdog
	hangUps  int   // of watch, that are counted in failures
	off      int64 // delivered
	failures int   // since mark
	mark     int64
	cause    error // why rc can give no more
}

// OpenBlob reads a blob of src, fetching again what a registry fails to send.
func OpenBlob(ctx context.Context, src types.ImageSource, info types.BlobInfo) (io.ReadCloser, error) {
	b := &resumedBlob{ctx: ctx, src: src, info: info, p: PatienceOf(ctx)}
	if err := b.p.Do(ctx, func(context.Context) error { return b.open() }); err != nil {
		return nil, err
	}
	return b, nil
}

// open has a watchdog of its own, that lives as long as the connection.
func (b *resumedBlob) open() error {
	ctx, w := watch(b.ctx, b.p.Stall)
	rc, size, err := b.src.GetBlob(ctx, b.info, none.NoCache)
	w.stop()
	if err != nil {
		return w.attribute(err)
	}
	if size >= 0 && b.info.Size >= 0 && size != b.info.Size {
		return errors.Join(hint.With(fmt.Errorf("%w: the registry announces %d bytes, the manifest says %d", blob.ErrDigest, size, b.info.Size),
			"the registry, or a proxy before it, is broken or alters content"), rc.Close())
	}
	b.rc, b.watch, b.hangUps = rc, w, 0
	return nil
}

func (b *resumedBlob) Read(p []byte) (int, error) {
	for {
		if b.cause != nil {
			if err := b.refetch(b.cause); err != nil {
				return 0, err
			}
			b.cause = nil
		}
		n, err := b.watch.read(b.rc, p)
		b.off += int64(n)
		if b.off-b.mark >= progressBytes {
			b.failures, b.mark = 0, b.off
		}
		if ended := b.watch.hangUps(); ended > b.hangUps { // and the library has resumed, or tried to
			b.failures += ended - b.hangUps
			b.hangUps = ended
			if b.failures > b.p.Retries {
				return n, b.p.stalled()
			}
		}
		if err == nil || err == io.EOF {
			return n, err
		}
		if b.cause = b.watch.attribute(err); n > 0 {
			return n, nil
		}
	}
}

// refetch fetches the blob anew because of cause, up to where it was.
func (b *resumedBlob) refetch(cause error) error {
	for {
		if err := context.Cause(b.ctx); err != nil {
			return err
		}
		if !isTransient(cause) {
			return cause
		}
		if b.failures++; b.failures > b.p.Retries {
			return hint.With(fmt.Errorf("fetching failed %d times, with %d bytes received: %w", b.p.Retries+1, b.off, cause),
				"try again later, raise --retry, or name another mirror in registries.conf")
		}
		logrus.Warnf("Fetching blob %s failed after %d bytes, trying again (%d/%d): %v", b.info.Digest, b.off, b.failures, b.p.Retries, cause)
		if err := b.wait(); err != nil {
			return err
		}
		err := b.rc.Close()
		if err == nil {
			err = b.open()
		}
		if err == nil {
			err = b.watch.attribute(b.skip())
		}
		if err == nil {
			return nil
		}
		cause = err
	}
}

func (b *resumedBlob) wait() error {
	d := b.p.Delay
	if d == 0 {
		d = time.Second << (b.failures - 1)
	}
	select {
	case <-time.After(d):
		return nil
	case <-b.ctx.Done():
		return context.Cause(b.ctx)
	}
}

func (b *resumedBlob) skip() error {
	n, err := io.CopyN(io.Discard, readFunc(func(p []byte) (int, error) { return b.watch.read(b.rc, p) }), b.off)
	if err == io.EOF {
		err = fmt.Errorf("%w: %d bytes this time, %d before", io.ErrUnexpectedEOF, n, b.off)
	}
	return err
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// Close implements io.Closer.
func (b *resumedBlob) Close() error {
	b.watch.stop()
	return b.rc.Close()
}
