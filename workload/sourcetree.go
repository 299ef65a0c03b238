package workload

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/ccrun/ccrun/workload/rootfs"
)

// tree reads every layer, several at a time, and merges them. What it returns
// reads contents from the layers, which stay open until Close.
func (s *source) tree(ctx context.Context, progress func(int64)) (*rootfs.Tree, error) {
	if err := s.ready(); err != nil {
		return nil, err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.GOMAXPROCS(0)))
	for _, l := range s.layers {
		g.Go(func() error { return l.prepare(gctx, s.options.TempDir, s.options.Limits, progress) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	layers := make([]rootfs.Layer, len(s.layers))
	indexes := make([]*rootfs.Index, len(s.layers))
	for i, l := range s.layers {
		layers[i], indexes[i] = l, l.index
	}
	return rootfs.MergeScanned(layers, indexes, s.options.Limits)
}

// ready refuses layers that no key was given for, before the first is fetched,
// and opens the cache, if there is to be one.
func (s *source) ready() error {
	for _, l := range s.layers {
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
	for _, l := range s.layers {
		l.cache = c
	}
	return nil
}

// keep says whether the tree's contents will be read once more after the next
// time. If not, spools give their space back as they are read.
func (s *source) keep(again bool) {
	for _, l := range s.layers {
		l.keep = again
	}
}

// rewind makes the tree's contents ready to be read from their start.
func (s *source) rewind() {
	for _, l := range s.layers {
		l.rewind()
	}
}

// verified fails if any layer turned out not to be what the manifest says, or
// was not read to its end.
func (s *source) verified() error {
	var errs []error
	for _, l := range s.layers {
		errs = append(errs, l.verified())
	}
	return errors.Join(errs...)
}

// remember keeps verified layers in the cache. Nothing is wrong with the build
// if it cannot.
func (s *source) remember() error {
	var errs []error
	for _, l := range s.layers {
		if err := l.remember(); err != nil {
			errs = append(errs, fmt.Errorf("not keeping layer %d for the next build: %w", l.number, err))
		}
	}
	return errors.Join(errs...)
}
