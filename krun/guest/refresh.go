package guest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun"
)

// refresher keeps the files of a running workload's secrets as the key server has
// them. While it gets none, or one is not there any more, the workload keeps the
// file that it has: it has read it, and would only be broken without.
type refresher struct {
	get   func(ctx context.Context, names []string) (kbs.Secrets, error)
	rules []krun.SecretRule
	root  string // of the file system of secrets
	every time.Duration
	sleep func(ctx context.Context, d time.Duration) error
	// note is for the workload's owner, complain for the host as well.
	note, complain func(string)
	changed        func() // once files were replaced

	said string // what was wrong last time; empty: nothing
	gone string // which secrets were
}

// firstRetry is how long after a failure it asks again, at first.
const firstRetry = 30 * time.Second

// run ends with ctx.
func (r *refresher) run(ctx context.Context) {
	pause := r.every
	for r.sleep(ctx, jittered(pause)) == nil {
		if err := r.refresh(ctx); err != nil {
			pause = min(2*pause, r.every)
			if r.said == "" {
				pause = min(firstRetry, r.every)
			}
			r.failed(err)
			continue
		}
		if r.said != "" {
			r.complain("the secrets are refreshed again")
		}
		pause, r.said = r.every, ""
	}
}

// jittered is d, a tenth more or less: guests that were started together need not
// ask together.
func jittered(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

func (r *refresher) failed(err error) {
	if said := err.Error(); said != r.said {
		r.complain("refreshing the secrets: " + said + "; the workload keeps what it has")
		r.said = said
	}
}

// refresh replaces what has changed. One file that cannot be replaced does not keep
// others from it.
func (r *refresher) refresh(ctx context.Context) (failed error) {
	names := map[string]bool{}
	for _, rule := range r.rules {
		if rule.Path != "" {
			names[rule.Name] = true
		}
	}
	got, err := r.get(ctx, slices.Sorted(maps.Keys(names)))
	if err != nil {
		return err
	}
	defer got.Wipe()
	r.noteGone(got)
	dir, err := os.OpenRoot(r.root)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	replaced := 0
	for i, rule := range r.rules {
		v := got[rule.Name].Value
		if rule.Path == "" || v.Len() == 0 || isThere(dir, rule.Place(i), v.Reveal()) {
			continue
		}
		if err := writeSecret(dir, rule.Place(i), rule, v.Reveal()); err != nil {
			failed = fmt.Errorf("writing secret %s: %w", rule.Name, err)
			continue
		}
		r.note(fmt.Sprintf("secret %s is now version %d, at %q", rule.Name, got[rule.Name].Version, rule.Path))
		replaced++
	}
	if replaced > 0 {
		r.changed()
	}
	return failed
}

func isThere(dir *os.Root, place string, value []byte) bool {
	f, err := dir.Open(place)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	have, err := bounded.Read(f, "a secret", kbs.MaxResourceBytes)
	defer clear(have)
	return err == nil && bytes.Equal(have, value)
}

// noteGone says which secrets the workload would not get any more.
func (r *refresher) noteGone(got kbs.Secrets) {
	var gone []string
	for _, rule := range r.rules {
		if s := got[rule.Name]; rule.Path != "" && s.Value.Len() == 0 && !rule.Optional {
			gone = append(gone, rule.Name+" ("+s.Refused+")")
		}
	}
	if text := strings.Join(slices.Compact(gone), ", "); text != r.gone {
		if r.gone = text; text != "" {
			r.note("the server no longer gives " + text + "; the workload keeps what it has")
		}
	}
}

// sleepFor is a refresher's sleep.
func sleepFor(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
