package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// work is one run, which may begin in the middle.
type work struct {
	judge  *judge
	file   string // of the state
	known  map[string]outcome
	commit string
	start  time.Time
}

func newWork(root, file string) (*work, error) {
	w := &work{file: file, known: map[string]outcome{}, commit: commit(root), start: time.Now()}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &w.known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	tmp, err := os.MkdirTemp("", "mutation")
	w.judge = &judge{root: root, tmp: tmp, fails: map[string][]string{}}
	return w, err
}

// all judges the mutants one by one, and keeps each outcome at once. Without
// again, it skips those whose entry, file and tests are as they were.
func (w *work) all(ctx context.Context, list []mutant, again bool) error {
	for i, m := range list {
		key, err := w.key(m)
		if err != nil {
			return err
		}
		if o, ok := w.known[m.id]; !ok || again || o.Key != key {
			o = w.judge.run(ctx, m)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			o.Key, o.Commit = key, w.commit
			w.known[m.id] = o
			if err := w.save(); err != nil {
				return err
			}
		}
		fmt.Printf("%3d/%d %s\n", i+1, len(list), line(m, w.known[m.id]))
	}
	return nil
}

func line(m mutant, o outcome) string {
	return strings.TrimSpace(fmt.Sprintf("%-9s %5.1f s  %s %s  %s%s", o.Verdict, o.Seconds, m.id, m.means, strings.Join(o.By, " "), o.Detail))
}

// key is a digest of the mutant and of every file in the packages that it
// changes and tests. What those import is left out: nearly every commit would
// begin anew, and the row of a result says of how many commits it is.
func (w *work) key(m mutant) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q\n", m.changes, m.tests, m.run)
	for _, dir := range m.dirs() {
		entries, err := os.ReadDir(filepath.Join(w.judge.root, dir))
		if err != nil {
			return "", fmt.Errorf("mutant %s: %w", m.id, err)
		}
		for _, e := range entries {
			if !e.Type().IsRegular() {
				continue
			}
			b, err := os.ReadFile(filepath.Join(w.judge.root, dir, e.Name()))
			if err != nil {
				return "", err
			}
			fmt.Fprintf(h, "%s/%s %x\n", dir, e.Name(), sha256.Sum256(b))
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (w *work) save() error {
	b, err := json.MarshalIndent(w.known, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(w.file), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(w.file+".new", b, 0o644); err != nil {
		return err
	}
	return os.Rename(w.file+".new", w.file)
}

// commit names the tree that is judged.
func commit(root string) string {
	c := exec.Command("git", "describe", "--always", "--dirty")
	c.Dir = root
	out, err := c.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
