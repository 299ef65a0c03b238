// Package sums is SHA-256 for streams that are hashed at the same time: the layers
// that a build reads and the disk that it writes. One message alone leaves a CPU
// waiting, since each round needs the one before; two at once cost hardly more
// where the CPU has room for that.
package sums

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"
)

// Group is streams that may be hashed two at once. The zero value and nil hash
// each by itself.
type Group struct {
	pairs bool
	mu    sync.Mutex
	alone *stream // is being hashed, and nobody beside it
}

type groupKey struct{}

// With lets what is hashed under the context be one group.
func With(ctx context.Context) context.Context {
	return context.WithValue(ctx, groupKey{}, &Group{pairs: pairs()})
}

// New is SHA-256, in the group of ctx if it has one. The hash must be written to
// by one goroutine at a time.
func New(ctx context.Context) hash.Hash {
	g, _ := ctx.Value(groupKey{}).(*Group)
	return g.hash()
}

func (g *Group) hash() hash.Hash {
	if g == nil || !g.pairs {
		return sha256.New()
	}
	s := &stream{group: g, turn: make(chan struct{}, 1)}
	s.Reset()
	return s
}

const (
	blockBytes = sha256.BlockSize
	// step is how much is hashed before another stream may join.
	step = 16 << 10
)

// stream implements hash.Hash.
type stream struct {
	group  *Group
	h      [8]uint32
	part   [blockBytes]byte // of a block, at the end of what was written
	have   int
	length uint64

	todo   []byte        // whole blocks
	beside *stream       // is hashed with this one
	turn   chan struct{} // nothing is left to do, or it goes on alone
}

// Reset implements hash.Hash.
func (s *stream) Reset() {
	// FIPS 180-4, section 5.3.3
	s.h = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
	s.have, s.length = 0, 0
}

// Size implements hash.Hash.
func (s *stream) Size() int { return sha256.Size }

// BlockSize implements hash.Hash.
func (s *stream) BlockSize() int { return blockBytes }

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	n := len(p)
	s.length += uint64(n)
	if s.have > 0 {
		k := copy(s.part[s.have:], p)
		s.have += k
		p = p[k:]
		if s.have == blockBytes {
			one(&s.h, &s.part[0], 1)
			s.have = 0
		}
	}
	if whole := len(p) &^ (blockBytes - 1); whole > 0 {
		s.do(p[:whole])
		p = p[whole:]
	}
	s.have += copy(s.part[s.have:], p)
	return n, nil
}

// Sum implements hash.Hash.
func (s *stream) Sum(b []byte) []byte {
	var end [2 * blockBytes]byte
	n := copy(end[:], s.part[:s.have])
	end[n] = 0x80
	blocks := (n + 1 + 8 + blockBytes - 1) / blockBytes
	binary.BigEndian.PutUint64(end[blocks*blockBytes-8:], s.length*8)
	h := s.h
	one(&h, &end[0], blocks)
	for _, word := range h {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	return b
}

// do hashes p, which is whole blocks: with its own goroutine, or beside a stream
// that is being hashed already.
func (s *stream) do(p []byte) {
	g := s.group
	s.todo = p
	g.mu.Lock()
	if other := g.alone; other != nil {
		g.alone, other.beside = nil, s
		g.mu.Unlock()
		<-s.turn
		if len(s.todo) == 0 {
			return
		}
		g.mu.Lock()
	}
	for len(s.todo) > 0 {
		if s.beside == nil && g.alone == nil {
			g.alone = s
		}
		other := s.beside
		g.mu.Unlock()
		s.advance(other)
		g.mu.Lock()
		if other != nil && len(other.todo) == 0 {
			s.beside = nil
			other.turn <- struct{}{}
		}
	}
	if g.alone == s {
		g.alone = nil
	}
	other := s.beside
	s.beside = nil
	g.mu.Unlock()
	if other != nil {
		other.turn <- struct{}{}
	}
}

// advance hashes a step of both, if there are two.
func (s *stream) advance(other *stream) {
	k := min(len(s.todo), step)
	if other == nil {
		one(&s.h, &s.todo[0], k/blockBytes)
	} else {
		k = min(k, len(other.todo))
		two(&s.h, &other.h, &s.todo[0], &other.todo[0], k/blockBytes)
		other.todo = other.todo[k:]
	}
	s.todo = s.todo[k:]
}
