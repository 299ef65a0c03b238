// Package chain holds what the certificate chains of all vendors have in common:
// validity, revocation, and not to check twice what was good.
package chain

import (
	"bytes"
	"crypto/sha256"
	"sync"
	"sync/atomic"
)

// maxCachedChains bounds a Cache; an entry is 4 to 8 KiB.
const maxCachedChains = 1024

// Cache remembers certificate chains that were good, by the SHA-256 of their
// bytes: checking one costs more than the signature on the Evidence.
// Only what a pinned root vouches for gets in, so no guest can fill it.
// Validity, revocation, TCB and chip are checked each time all the same.
type Cache[V any] struct {
	mu sync.RWMutex
	m  map[[sha256.Size]byte]*V

	hits, misses atomic.Uint64
}

// Use is how often a chain was found checked already, and how often not.
type Use struct{ Hits, Misses uint64 }

// Use says how well the cache works.
func (c *Cache[V]) Use() Use { return Use{c.hits.Load(), c.misses.Load()} }

// Get is the checked form of b, from the cache if it is there and usable.
func (c *Cache[V]) Get(b []byte, usable func(*V) bool, check func([]byte) (*V, error)) (*V, error) {
	id := sha256.Sum256(b)
	c.mu.RLock()
	v := c.m[id]
	c.mu.RUnlock()
	if v != nil && usable(v) {
		c.hits.Add(1)
		return v, nil
	}
	c.misses.Add(1)
	v, err := check(bytes.Clone(b))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[[sha256.Size]byte]*V{}
	}
	if len(c.m) >= maxCachedChains {
		for old := range c.m {
			delete(c.m, old)
			break
		}
	}
	c.m[id] = v
	return v, nil
}
