package source

import (
	"context"
	"errors"
	"io"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/scratch"
)

// cacheable says whether the layer may be kept, and that would save anything: one
// that can be read in place is as good as kept. A layer that its owner encrypted
// is not kept, since that would be under another key than theirs.
func (l *Layer) cacheable() bool {
	return l.cache != nil && !l.encrypted() && (!l.local || l.info.Digest != l.diffID)
}

// recall takes the layer from the cache, if it is there. Only headers are read
// now. As with a blob that is read in place, Open's reader finds out whether it
// is the right layer: by its digest, and by meeting the same headers again.
func (l *Layer) recall(ctx context.Context, limits rootfs.Limits) bool {
	s := l.cache.find(l.diffID)
	if s == nil {
		return false
	}
	index, err := rootfs.Scan(ctx, s.Reader(), limits)
	if err != nil { // if the layer itself is wrong, reading the source will show it
		_ = s.Close()
		if ctx.Err() == nil {
			l.cache.remove(l.diffID)
		}
		return false
	}
	l.index, l.found = index, s
	l.fetch = func(context.Context) (io.ReadCloser, error) { return s.Reader(), nil }
	return true
}

// newSpool is a spool in dir, or one that the cache can keep.
func (l *Layer) newSpool(dir string) (*scratch.Spool, error) {
	if !l.cacheable() {
		return scratch.NewSpool(dir)
	}
	e, s, err := l.cache.create()
	if err != nil {
		return nil, err
	}
	l.entry = e
	return s, nil
}

// remember keeps a layer that has been verified for the next build.
func (l *Layer) remember() error {
	if l.entry == nil {
		return nil
	}
	return l.cache.publish(l.entry, l.diffID, l.spool.SizeBytes())
}

// forget lets go of what the cache had, and removes it if it was wrong.
func (l *Layer) forget() error {
	if l.found == nil {
		return nil
	}
	if errors.Is(l.bad, blob.ErrDigest) {
		l.cache.remove(l.diffID)
	}
	s := l.found
	l.found = nil
	return s.Close()
}
