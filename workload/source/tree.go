package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// Tree reads every layer, several at a time, and merges them. What it returns
// reads contents from the layers, which stay open until Close.
func (s *Image) Tree(ctx context.Context, progress func(int64)) (*rootfs.Tree, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	limits := s.options.Limits.Shared()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	for _, l := range s.Layers {
		g.Go(func() error { return l.prepare(gctx, s.options.TempDir, limits, progress) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	layers := make([]rootfs.Layer, len(s.Layers))
	indexes := make([]*rootfs.Index, len(s.Layers))
	for i, l := range s.Layers {
		layers[i], indexes[i] = l, l.index
	}
	return rootfs.Merge(layers, indexes, limits)
}

// ReadFile reads one regular file of the tree that Tree returned, nil if there
// is none. What it returns is not verified yet: see rootfs.Tree.ReadFile.
func (s *Image) ReadFile(ctx context.Context, tree *rootfs.Tree, name string, limit int64) ([]byte, error) {
	return tree.ReadFile(ctx, name, limit, func(layer int) (io.ReadCloser, error) {
		l := s.Layers[layer]
		if l.spool != nil {
			return l.spool.Reader(), nil
		}
		return l.fetch(ctx)
	})
}

// ready refuses layers that no key was given for, before the first is fetched,
// and opens the cache, if there is to be one.
func (s *Image) ready() error {
	for _, l := range s.Layers {
		if err := l.needKeys(); err != nil {
			return err
		}
	}
	if s.options.Cache == nil {
		return nil
	}
	c, err := s.options.Cache.open()
	if err != nil {
		return err
	}
	for _, l := range s.Layers {
		l.cache = c
	}
	return nil
}

// Keep says whether the tree's contents will be read once more after the next
// time. If not, spools give their space back as they are read.
func (s *Image) Keep(again bool) {
	for _, l := range s.Layers {
		l.keep = again
	}
}

// Rewind makes the tree's contents ready to be read from their start.
func (s *Image) Rewind() {
	for _, l := range s.Layers {
		l.rewind()
	}
}

// Verified fails if any layer turned out not to be what the manifest says, or
// was not read to its end.
func (s *Image) Verified() error {
	var errs []error
	for _, l := range s.Layers {
		errs = append(errs, l.verified())
	}
	return errors.Join(errs...)
}

// Remember keeps verified layers in the cache. Nothing is wrong with the build
// if it cannot.
func (s *Image) Remember() error {
	var errs []error
	for _, l := range s.Layers {
		if err := l.remember(); err != nil {
			errs = append(errs, fmt.Errorf("not keeping layer %d for the next build: %w", l.number, err))
		}
	}
	return errors.Join(errs...)
}
