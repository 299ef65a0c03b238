package store

import (
	"sync"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// How many registrations are kept decoded, and up to what size.
const (
	maxRegistrations     = 1024
	maxRegistrationBytes = 16 << 10
)

// registrations decodes registrations, and keeps what it has decoded by the
// digest of the bytes: every guest of a workload asks for the same one, twice.
type registrations struct {
	mu sync.RWMutex
	m  map[kbs.Digest]kbs.Registration
}

// read decodes canonical JSON. What it returns is shared: nobody may change it.
func (c *registrations) read(canonical []byte) (kbs.Registration, kbs.Digest, error) {
	d := kbs.Sum384(canonical)
	c.mu.RLock()
	reg, ok := c.m[d]
	c.mu.RUnlock()
	if ok {
		return reg, d, nil
	}
	if err := kbs.UnmarshalCanonical(canonical, &reg); err != nil {
		return kbs.Registration{}, kbs.Digest{}, err
	}
	if len(canonical) > maxRegistrationBytes {
		return reg, d, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[kbs.Digest]kbs.Registration{}
	}
	if len(c.m) >= maxRegistrations {
		for old := range c.m {
			delete(c.m, old)
			break
		}
	}
	c.m[d] = reg
	return reg, d, nil
}
