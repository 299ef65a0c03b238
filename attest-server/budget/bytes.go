// Package budget bounds what requests use of the server at once: memory for
// their bodies, and turns at work that is dear. What is not to be had now is
// refused with the time to come again.
package budget

import (
	"sync"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
)

const (
	// smallBytes is the size up to which a request may use the last quarter of
	// Bytes: an SNP guest's Evidence is smaller.
	smallBytes = 64 << 10
	// perKey is the fraction of Bytes that one key may have.
	perKey = 4
	// comeBack is when a refused request is worth another try.
	comeBack = 2 * time.Second
)

// Bytes is memory for what is being received and worked on. Who asks for it is
// told apart by a key, such as an address. It is safe for concurrent use.
type Bytes[K comparable] struct {
	max int64

	mu   sync.Mutex
	used int64
	by   map[K]int64
}

// NewBytes is most bytes in all. One key gets a quarter of them, and all
// requests that are not small three quarters, so that large ones cannot keep
// small ones out.
func NewBytes[K comparable](most int64) *Bytes[K] {
	return &Bytes[K]{max: most, by: map[K]int64{}}
}

// Take reserves n bytes more for a request that has had bytes already. shared
// says that key stands for many who are to be trusted not to take all: a
// proxy's address. It returns a refusal if there are not so many.
func (b *Bytes[K]) Take(key K, shared bool, had, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := b.max
	if had+n > smallBytes {
		limit = b.max - b.max/4
	}
	if n < 0 || b.used+n > limit || !shared && b.by[key]+n > b.max/perKey {
		return Busy("bodies of other requests fill the memory that is for them")
	}
	b.used += n
	b.by[key] += n
	return nil
}

// Give returns what was taken for key.
func (b *Bytes[K]) Give(key K, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.by[key] -= n; b.by[key] <= 0 {
		delete(b.by, key)
	}
}

// InUse is how many bytes are taken now.
func (b *Bytes[K]) InUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Busy is the refusal of what cannot be done now, and can be soon.
func Busy(why string) error {
	return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the server is busy: " + why, RetryAfter: comeBack}
}
