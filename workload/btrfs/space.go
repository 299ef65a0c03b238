package btrfs

import (
	"slices"
	"sort"
)

const (
	superOffset = 64 << 10
	firstByte   = 1 << 20   // what is before is left to boot loaders
	maxExtent   = 128 << 20 // the largest that the kernel makes
)

// limits are where a chunk of data ends. Tests have smaller ones.
type limits struct {
	chunk   uint64 // bytes of a chunk, of any kind; a multiple of stripeSize
	extent  uint64 // bytes of an extent; at most maxExtent
	waiting int    // leaves that are kept while data is written that stands before them
}

func defaultLimits() limits { return limits{chunk: 1 << 30, extent: maxExtent, waiting: 512} }

// mirrors are the places of the superblock's copies. No chunk reaches over
// one, so that none has a part that must not be used.
var mirrors = [...]uint64{64 << 20, 256 << 30}

// chunk is a run of bytes for one kind of content. It is at the same place in
// the logical address space as on the disk.
type chunk struct {
	kind        uint64
	start, used uint64
	length      uint64 // a multiple of stripeSize; 0 while it is the last
}

func (c *chunk) end() uint64 { return c.start + c.used }

// space is the disk as far as it has been given away, upwards and without gaps
// but for the ends of chunks and the superblock's copies.
type space struct {
	limits
	chunks []chunk
}

func (s *space) clone() space { return space{s.limits, slices.Clone(s.chunks)} }

// next is where a chunk can begin.
func (s *space) next() uint64 {
	if len(s.chunks) == 0 {
		return firstByte
	}
	c := s.chunks[len(s.chunks)-1]
	at := c.start + roundUp(c.used, stripeSize)
	if slices.Contains(mirrors[:], at) {
		at += stripeSize
	}
	return at
}

// room says how much can be taken at once for a kind of content. Another
// kind's chunk ends with that.
func (s *space) room(kind uint64) uint64 {
	if n := len(s.chunks); n > 0 && s.chunks[n-1].kind == kind {
		if c := &s.chunks[n-1]; c.end() < s.limit(c) {
			return s.limit(c) - c.end()
		}
	}
	s.chunks = append(s.chunks, chunk{kind: kind, start: s.next()})
	s.finish(len(s.chunks) - 1)
	c := &s.chunks[len(s.chunks)-1]
	return s.limit(c) - c.start
}

// finish settles the lengths of the first n chunks.
func (s *space) finish(n int) {
	for i := n - 1; i >= 0 && s.chunks[i].length == 0; i-- {
		s.chunks[i].length = roundUp(s.chunks[i].used, stripeSize)
	}
}

// limit is where a chunk must end.
func (s *space) limit(c *chunk) uint64 {
	limit := c.start + s.chunk
	for _, m := range mirrors {
		if c.start < m {
			limit = min(limit, m)
		}
	}
	return limit
}

// take gives away n bytes, no more than room said just now.
func (s *space) take(kind, n uint64) (at uint64) {
	if s.room(kind) < n {
		panic("more than there was room for (a bug in this package)")
	}
	c := &s.chunks[len(s.chunks)-1]
	at = c.end()
	c.used += n
	return at
}

// run says how many of n bytes of data from at on lie together. At the end of
// one data chunk it goes on in the next.
func (s *space) run(at, n uint64) (from, length uint64) {
	i := sort.Search(len(s.chunks), func(i int) bool { return s.chunks[i].end() > at })
	for i < len(s.chunks) && s.chunks[i].kind != dataChunk {
		i++
	}
	if i == len(s.chunks) {
		return at, 0
	}
	from = max(at, s.chunks[i].start)
	return from, min(n, s.chunks[i].end()-from)
}

func roundUp(n, to uint64) uint64 { return (n + to - 1) / to * to }
