//go:build !purego

package sums

import (
	"time"

	"golang.org/x/sys/cpu"
)

// one goes on with a state by blocks (at least one) of 64 bytes from p; two does
// so with two states and messages.
//
//go:noescape
func one(h *[8]uint32, p *byte, blocks int)

//go:noescape
func two(h1, h2 *[8]uint32, p1, p2 *byte, blocks int)

func hasSHA() bool

// pairs says whether this CPU does two messages in less than one and a half times
// the time of one. Some take twice that: there, each has a core to itself.
func pairs() bool {
	if !hasSHA() || !cpu.X86.HasSSSE3 || !cpu.X86.HasSSE41 {
		return false
	}
	const blocks = 512
	var p, q [blocks * 64]byte
	h := [2][8]uint32{}
	alone, both := time.Hour, time.Hour
	for range 3 { // the shortest: others use the machine, too
		start := time.Now()
		one(&h[0], &p[0], blocks)
		middle := time.Now()
		two(&h[0], &h[1], &p[0], &q[0], blocks)
		alone, both = min(alone, middle.Sub(start)), min(both, time.Since(middle))
	}
	return both < alone*3/2
}
