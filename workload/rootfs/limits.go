package rootfs

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrLimit is wrapped by every refusal that a Limits field caused.
var ErrLimit = errors.New("limit exceeded")

// Limits bound what a set of layers may cost. They hold for one layer alone;
// once Shared, for all layers together. A zero field means its default: there
// is no "unlimited".
type Limits struct {
	Entries    int   // headers read and directories implied; default 1 Mi (1048576)
	PathBytes  int   // length of a cleaned path, and of a link target; default 4095 (Linux PATH_MAX)
	Depth      int   // components of a path after resolving links; default 1024
	XattrBytes int   // names and values of one entry's attributes; default 64 KiB
	TotalBytes int64 // sum of the files' logical sizes, replaced files included; default 256 GiB
	MetaBytes  int64 // memory for names, link targets, attributes and holes; default 160 MiB
	LayerBytes int64 // one layer's uncompressed tar stream; default TotalBytes + 4 GiB

	spent *account // nil: every Scan has its own
}

// Shared is l with one account, to which every Scan adds that is given it.
func (l Limits) Shared() Limits {
	l.spent = &account{}
	return l
}

// account is how much layers have taken so far.
type account [3]atomic.Int64

const (
	ofEntries = iota
	ofBytes
	ofMeta
)

// budget is what one layer may take, and what it has taken.
type budget struct {
	limits Limits // with defaults and an account
	own    [len(account{})]int64
}

func newBudget(l Limits) *budget {
	if l.spent == nil {
		l = l.Shared()
	}
	return &budget{limits: l.withDefaults()}
}

// take adds n and returns the sum of all layers.
func (b *budget) take(what int, n int64) int64 {
	b.own[what] += n
	return b.limits.spent[what].Add(n)
}

// giveBack is for a layer that was not read to its end: it may be read again,
// from elsewhere.
func (b *budget) giveBack() {
	for what, n := range b.own {
		b.limits.spent[what].Add(-n)
	}
}

const (
	maxNameBytes    = 255
	maxSymlinkHops  = 40 // as Linux
	maxSparseRanges = 1 << 20
	maxSizeBytes    = 1 << 62
)

func orDefault[T int | int64](v, d T) T {
	if v <= 0 {
		return d
	}
	return v
}

func (l Limits) withDefaults() Limits {
	l.Entries = orDefault(l.Entries, 1<<20)
	l.PathBytes = orDefault(l.PathBytes, 4095)
	l.Depth = orDefault(l.Depth, 1024)
	l.XattrBytes = orDefault(l.XattrBytes, 64<<10)
	l.TotalBytes = orDefault(l.TotalBytes, 256<<30)
	l.MetaBytes = orDefault(l.MetaBytes, 160<<20)
	l.LayerBytes = orDefault(l.LayerBytes, l.TotalBytes+4<<30)
	return l
}

func exceeded(what string, limit, got any) error {
	return fmt.Errorf("%w: %s: at most %v, got %v", ErrLimit, what, limit, got)
}

// EntryError says which layer (counted from 1) and which path in it an error
// is about. Layer is 0 where only the caller knows which it is; Path is empty
// when the error is about the layer as a whole.
type EntryError struct {
	Layer int
	Path  string
	Err   error
}

func (e *EntryError) Error() string {
	text := e.Err.Error()
	if e.Path != "" {
		text = fmt.Sprintf("%q: %s", shorten(e.Path), text)
	}
	if e.Layer != 0 {
		text = fmt.Sprintf("layer %d: %s", e.Layer, text)
	}
	return text
}

func (e *EntryError) Unwrap() error { return e.Err }

// shorten keeps a hostile name from filling the terminal.
func shorten(s string) string {
	if len(s) <= 200 {
		return s
	}
	return s[:100] + "..." + s[len(s)-90:]
}
