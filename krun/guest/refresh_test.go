package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
)

// TestRefresher goes through what a server can answer a running guest: what is new
// gets there, what is gone stays, and who cannot be asked is asked again, ever
// more slowly.
func TestRefresher(t *testing.T) {
	root := t.TempDir()
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	rules := []krun.SecretRule{
		{Name: "a/b/c", Path: "/run/secrets/c", UID: uid, GID: gid}, {Name: "a/b/d", Path: "/etc/d", UID: uid, GID: gid},
		{Name: "a/b/o", Path: "/run/secrets/o", UID: uid, GID: gid, Optional: true}, {Name: "a/b/e", Env: "E"},
	}
	if err := writeSecrets(root, rules, gotten(map[string]string{"a/b/c": "old", "a/b/d": "old", "a/b/e": "old"})); err != nil {
		t.Fatal(err)
	}
	down := errors.New("the server is down")
	gone := map[string]string{"a/b/c": "new", "a/b/d": "refused:not_found", "a/b/o": "refused:not_found"}
	var paused []time.Duration
	var said, noted []string
	changes := 0
	step := 0
	steps := []struct {
		values  map[string]string
		err     error
		c, d, o string // files afterwards
		changes int
		says    string
	}{
		{map[string]string{"a/b/c": "old", "a/b/d": "old", "a/b/o": "refused:not_found"}, nil, "old", "old", "", 0, ""},
		{gone, nil, "new", "old", "", 1, ""},
		{gone, nil, "new", "old", "", 1, ""},
		{nil, down, "new", "old", "", 1, "down; the workload keeps"},
		{nil, down, "new", "old", "", 1, ""},
		{nil, down, "new", "old", "", 1, ""},
		{map[string]string{"a/b/c": "new", "a/b/d": "back", "a/b/o": "there\x00"}, nil, "new", "back", "there\x00", 2, "refreshed again"},
	}
	check := func() {
		if step == 0 {
			return
		}
		s := steps[step-1]
		for place, want := range map[string]string{"c": s.c, ".at/1/d": s.d, "o": s.o} {
			if b, _ := os.ReadFile(filepath.Join(root, place)); string(b) != want {
				t.Errorf("step %d: %s is %q, expected %q", step, place, b, want)
			}
		}
		if text := strings.Join(said, ", "); changes != s.changes || (text == "") != (s.says == "") || !strings.Contains(text, s.says) {
			t.Errorf("step %d: %d changes, said %q", step, changes, text)
		}
		said = nil
	}
	r := &refresher{
		rules: rules, root: root, every: time.Hour,
		get: func(_ context.Context, names []string) (kbs.Secrets, error) {
			if got := strings.Join(names, " "); got != "a/b/c a/b/d a/b/o" {
				t.Errorf("asks for %s", got)
			}
			s := steps[step]
			step++
			return gotten(s.values), s.err
		},
		sleep: func(_ context.Context, d time.Duration) error {
			check()
			paused = append(paused, d)
			if step == len(steps) {
				return errors.New("enough")
			}
			return nil
		},
		note: func(s string) { noted = append(noted, s) }, complain: func(s string) { said = append(said, s) },
		changed: func() { changes++ },
	}
	r.run(t.Context())
	for i, want := range []time.Duration{time.Hour, time.Hour, time.Hour, time.Hour, 30 * time.Second, time.Minute, 2 * time.Minute, time.Hour} {
		if d := paused[i]; d < want*9/10 || d > want*11/10 {
			t.Errorf("pause %d is %s, expected about %s", i, d, want)
		}
	}
	notes := strings.Join(noted, "\n")
	if strings.Count(notes, "no longer gives a/b/d (not_found)") != 1 || !strings.Contains(notes, "secret a/b/c is now version 1") || strings.Contains(notes, "there\x00") {
		t.Errorf("notes: %s", notes)
	}
}

// TestRefreshOneFails: a file that cannot be replaced is told, and the others are.
func TestRefreshOneFails(t *testing.T) {
	root := t.TempDir()
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	if err := os.MkdirAll(filepath.Join(root, "c/in/the/way"), 0o755); err != nil {
		t.Fatal(err)
	}
	changes := 0
	r := &refresher{
		rules: []krun.SecretRule{{Name: "a/b/c", Path: "/run/secrets/c", UID: uid, GID: gid}, {Name: "a/b/d", Path: "/run/secrets/d", UID: uid, GID: gid}}, root: root,
		get: func(context.Context, []string) (kbs.Secrets, error) {
			return gotten(map[string]string{"a/b/c": "new", "a/b/d": "new"}), nil
		},
		note: func(string) {}, changed: func() { changes++ },
	}
	err := r.refresh(t.Context())
	if b, _ := os.ReadFile(filepath.Join(root, "d")); err == nil || !strings.Contains(err.Error(), "a/b/c") || string(b) != "new" || changes != 1 {
		t.Errorf("%v, %q, %d changes", err, b, changes)
	}
}
