package endorsements

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// maxCacheItems bounds a Cache, so that LoadBundle can still read it whole.
const maxCacheItems = maxBundleFiles / 2

// ErrCacheFull reports that a Cache holds as much as it may.
var ErrCacheFull = fmt.Errorf("cache holds %d endorsements, which is the limit: remove some files", maxCacheItems)

// CacheOptions configures a Cache. The zero value is one in memory under the
// vendors' roots.
type CacheOptions struct {
	Dir       string            // files are named by their SHA-256; empty: memory only
	Lines     []snp.ProductLine // nil: those of snp.Roots
	IntelRoot *x509.Certificate // nil: Intel SGX Root CA
}

// Cache keeps Endorsements that a pinned root vouches for, and nothing else,
// in files that LoadBundle reads. Of CRLs and collateral only the freshest
// stays. It implements Endorsements and CollateralSource and is safe for
// concurrent use, also by several processes.
type Cache struct {
	dir   string
	roots pinned

	mu      sync.RWMutex
	items   map[string]*cached // by SHA-256
	bundle  *Bundle
	refused []Refusal
}

type cached struct {
	*Endorsement
	files []string // where it lies in dir
}

// Refusal is something that was not taken, and why.
type Refusal struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// OpenCache reads the directory, if there is one. What no pinned root vouches
// for is left lying there unused: Refused names it.
func OpenCache(o CacheOptions) (*Cache, error) {
	c := &Cache{dir: o.Dir, roots: pinned{intel: o.IntelRoot}}
	lines, err := o.Lines, error(nil)
	if lines == nil {
		if lines, err = snp.Roots(); err != nil {
			return nil, err
		}
	}
	for i := range lines {
		if err := lines[i].Check(); err != nil {
			return nil, err
		}
		c.roots.lines = append(c.roots.lines, &lines[i])
	}
	if c.roots.intel == nil {
		if c.roots.intel, err = tdx.Root(); err != nil {
			return nil, err
		}
	}
	return c, c.Reload()
}

// Reload reads the directory again: another process may have filled it.
func (c *Cache) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.items
	if c.dir == "" && old != nil {
		return nil
	}
	c.items, c.refused = map[string]*cached{}, nil
	if c.dir != "" {
		if err := c.read(old); err != nil {
			c.items = old
			return fmt.Errorf("reading the endorsement cache: %w", err)
		}
	}
	c.rebuild()
	return nil
}

func (c *Cache) read(old map[string]*cached) error {
	err := walkSmall(os.DirFS(c.dir), func(name string, content []byte) error {
		for _, i := range split(name, content) {
			if i.err != nil {
				c.refused = append(c.refused, Refusal{i.name, i.err.Error()})
				continue
			}
			if c.roots.needless(i.content) != "" {
				continue
			}
			e, err := c.roots.judge(i.content)
			if err != nil {
				c.refused = append(c.refused, Refusal{i.name, err.Error()})
				continue
			}
			// The same pointers as before: verifiers remember by them what
			// they have checked.
			if o := old[e.SHA256]; o != nil {
				e = o.Endorsement
			}
			if c.items[e.SHA256] == nil {
				c.items[e.SHA256] = &cached{Endorsement: e}
			}
			c.items[e.SHA256].files = append(c.items[e.SHA256].files, name)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rebuild makes the view that verifiers look into. c.mu is held.
func (c *Cache) rebuild() {
	b := &Bundle{collateral: map[string][]*tdx.Collateral{}}
	for _, e := range c.sorted() {
		switch {
		case e.collateral != nil:
			b.collateral[e.fmspc] = append(b.collateral[e.fmspc], e.collateral.Raw)
		case e.crl != nil:
			b.crls = append(b.crls, e.crl)
		case e.vek != nil:
			b.veks = append(b.veks, storedVEK{der: e.content, facts: *e.vek})
		}
	}
	c.bundle = b
}

func (c *Cache) sorted() []*Endorsement {
	var all []*Endorsement
	for _, i := range c.items {
		all = append(all, i.Endorsement)
	}
	slices.SortFunc(all, func(a, b *Endorsement) int {
		if n := strings.Compare(a.Product+" "+a.Kind, b.Product+" "+b.Kind); n != 0 {
			return n
		}
		return strings.Compare(a.SHA256, b.SHA256)
	})
	return all
}

// List is everything in the cache, by product and kind.
func (c *Cache) List() []*Endorsement {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.sorted()
}

// Refused is what lies in the directory and is not used.
func (c *Cache) Refused() []Refusal {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Clone(c.refused)
}

// CRLs is every CRL, for SetCRLs.
func (c *Cache) CRLs() []*x509.RevocationList { return c.view().CRLs() }

func (c *Cache) view() *Bundle {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.bundle
}

// Candidates implements snp.Endorsements.
func (c *Cache) Candidates(ctx context.Context, k snp.EndorsementKey) ([][]byte, error) {
	return c.view().Candidates(ctx, k)
}

// Collateral implements tdx.CollateralSource.
func (c *Cache) Collateral(ctx context.Context, fmspc, ca string) ([]*tdx.Collateral, error) {
	return c.view().Collateral(ctx, fmspc, ca)
}

// collateralFor is the collateral kept for a platform, or nil.
func (c *Cache) collateralFor(fmspc, ca string) *Endorsement {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var best *Endorsement
	for _, i := range c.items {
		if i.Kind == KindCollateral && i.fmspc == strings.ToLower(fmspc) && i.ca == ca && (best == nil || i.fresher(best)) {
			best = i.Endorsement
		}
	}
	return best
}

// Add keeps content, a single DER structure or collateral in JSON, if a pinned
// root vouches for it and nothing fresher is there. Of collateral each part
// counts for itself. What is kept is returned, also if nothing was added.
func (c *Cache) Add(content []byte) (e *Endorsement, added bool, err error) {
	if e, err = c.roots.judge(bytes.Clone(content)); err != nil {
		return nil, false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	superseded := c.inSlot(e)
	for _, i := range superseded {
		if e.Kind == KindCollateral {
			e, err = c.merge(i.Endorsement, e)
		}
		if err != nil {
			return nil, false, err
		}
		if e.Kind != KindCollateral && i.fresher(e) {
			return i.Endorsement, false, nil
		}
	}
	if have := c.items[e.SHA256]; have != nil {
		return have.Endorsement, false, nil
	}
	if len(c.items)-len(superseded) >= maxCacheItems {
		return e, false, ErrCacheFull
	}
	item := &cached{Endorsement: e}
	if c.dir != "" {
		if err := writeAtomic(c.dir, e.fileName(), e.content); err != nil {
			return e, false, fmt.Errorf("keeping %s: %w", e.Kind, err)
		}
		item.files = []string{e.fileName()}
	}
	c.items[e.SHA256] = item
	// Only once the fresher one is safe on the disk.
	for _, i := range superseded {
		delete(c.items, i.SHA256)
		err = errors.Join(err, c.remove(i))
	}
	c.rebuild()
	return e, true, err
}

// inSlot is what is kept in the place that e would take.
func (c *Cache) inSlot(e *Endorsement) []*cached {
	var all []*cached
	for _, i := range c.items {
		if e.slot != "" && i.slot == e.slot {
			all = append(all, i)
		}
	}
	return all
}

// merge is the freshest parts of both, or old itself if they are all its own.
func (c *Cache) merge(old, e *Endorsement) (*Endorsement, error) {
	b, err := json.Marshal(tdx.FreshestParts(old.collateral, e.collateral))
	if err != nil {
		return nil, err
	}
	if bytes.Equal(b, old.content) {
		return old, nil
	}
	return c.roots.judge(b)
}

// remove deletes the files that the cache itself named.
func (c *Cache) remove(i *cached) error {
	for _, name := range i.files {
		if name != i.fileName() {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing what was superseded: %w", err)
		}
	}
	return nil
}
