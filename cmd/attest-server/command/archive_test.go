package command

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
)

// note adds n entries to the audit log of the store that config names.
func note(t *testing.T, config string, n int) {
	t.Helper()
	var cfg Config
	if err := cfg.read(config); err != nil {
		t.Fatal(err)
	}
	err := cfg.withUnlocked(t.Context(), func(s *store.DB) error {
		var wg sync.WaitGroup
		for c := range 64 { // together in a commit
			wg.Go(func() {
				for i := c; i < n; i += 64 {
					if err := s.Note(t.Context(), "test", "w", ""); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestArchiveAudit: what is archived can be checked together with the log; what is
// missing, cut off, edited or another log's is not taken for it.
func TestArchiveAudit(t *testing.T) {
	dir, _, config, _ := witnessed(t)
	mustRun(t, "audit", "introduce", "--config", config)
	out := t.TempDir()
	first, second := filepath.Join(out, "1.jsonl"), filepath.Join(out, "2.jsonl")
	if _, log, err := run(t.Context(), "audit", "archive", "--config", config, "--output", first); err != nil || !strings.Contains(log, "nothing to archive") {
		t.Fatalf("of a short log: %q, %v", log, err)
	}
	note(t, config, 1200)
	whole := copyDir(t, dir) // worth something only if the store is in it
	if got := mustRun(t, "audit", "archive", "--config", config, "--output", first, "--up-to", "512"); !strings.HasPrefix(got, "1-512 ") {
		t.Fatalf("archive: %q", got)
	}
	if got := mustRun(t, "audit", "archive", "--config", config, "--output", second, "--up-to", "800"); !strings.HasPrefix(got, "513-768 ") {
		t.Fatalf("archive: %q", got)
	}
	head := strings.TrimSpace(mustRun(t, "audit", "verify", "--config", config))
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	lines := strings.SplitAfter(read(second), "\n")
	other, otherConfig := anotherArchive(t)
	for name, x := range map[string]struct {
		archives []string // paths, or contents
		want     string   // of the error, or of what is said
		good     bool
	}{
		"both":            {[]string{second, first}, "signed up to", true},
		"none":            {nil, "entries up to 768 are in archives, and were not checked", true},
		"the second":      {[]string{second}, "entries up to 512 are in archives, and were not checked", true},
		"the first alone": {[]string{first}, "entries 513 to 768 are in none", false},
		"one twice":       {[]string{first, second, first}, "signed up to", true},
		"another log's":   {[]string{other}, "here they have", false},
		"no end":          {[]string{first, strings.Join(lines[:len(lines)-2], "")}, "its last line is missing", false},
		"cut":             {[]string{first, read(second)[:len(read(second))-3]}, "cut off", false},
		"edited":          {[]string{first, strings.Replace(read(second), `"object":"w"`, `"object":"v"`, 1)}, "does not follow", false},
		"an entry gone":   {[]string{first, strings.Replace(read(second), lines[5], "", 1)}, "does not follow", false},
		"more":            {[]string{first, read(second) + "x\n"}, "something behind", false},
		"no archive":      {[]string{first, "x\n"}, "not a whole archive", false},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"audit", "verify", "--config", config}
			for i, a := range x.archives {
				if !strings.HasPrefix(a, "/") {
					path := filepath.Join(t.TempDir(), fmt.Sprint(i))
					if err := os.WriteFile(path, []byte(a), 0o600); err != nil {
						t.Fatal(err)
					}
					a = path
				}
				args = append(args, "--archive", a)
			}
			got, log, err := run(t.Context(), args...)
			if x.good && (err != nil || strings.TrimSpace(got) != head || !strings.Contains(log, x.want)) {
				t.Errorf("%q, %q, %v, expected %q", got, log, err, x.want)
			}
			if !x.good && (err == nil || !strings.Contains(err.Error(), x.want)) {
				t.Errorf("%v, expected %q", err, x.want)
			}
		})
	}
	for path, want := range map[string]string{
		first:                         "ends with entry 512, and the log begins behind entry 768",
		other:                         "entry 1024 is not",
		filepath.Join(out, "no/such"): "no such file",
		otherConfig:                   "not a whole archive",
	} {
		if _, _, err := run(t.Context(), "audit", "archive", "--config", config, "--output", path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("archiving to %s: %v, expected %q", path, err, want)
		}
	}
	mustRun(t, "audit", "verify", "--config", config, "--archive", first, "--archive", second)
	if _, _, err := run(t.Context(), "audit", "verify", "--config", config, "--expect", "100:00"); err == nil {
		t.Error("an entry of an archive that is not given is found")
	}
	if databasetest.OnPostgres() {
		return
	}
	if _, _, err := run(t.Context(), "audit", "archive", "--data", whole, "--output", second); err == nil || !strings.Contains(err.Error(), "would be lost") {
		t.Errorf("cutting more than the archive has: %v", err)
	}
}

// copyDir is a copy of a data directory.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(copied, masterkey.Name), 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}

// anotherArchive is the archive of another log, longer than the one under test.
func anotherArchive(t *testing.T) (path, config string) {
	t.Helper()
	_, _, config, _ = witnessed(t)
	mustRun(t, "audit", "introduce", "--config", config)
	note(t, config, 1100)
	path = filepath.Join(t.TempDir(), "other.jsonl")
	mustRun(t, "audit", "archive", "--config", config, "--output", path, "--up-to", "1024")
	return path, config
}

// TestArchiveAsksWitnesses: what a witness has not seen stays, and so does all
// while one of them does not agree.
func TestArchiveAsksWitnesses(t *testing.T) {
	_, _, config, seen := witnessed(t)
	mustRun(t, "audit", "introduce", "--config", config)
	alone := filepath.Join(t.TempDir(), "alone.toml")
	if text, err := os.ReadFile(config); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(alone, text[:bytes.Index(text, []byte("[[witness]]"))], 0o600); err != nil {
		t.Fatal(err)
	}
	note(t, config, 300)
	path := filepath.Join(t.TempDir(), "archive")
	if _, _, err := run(t.Context(), "audit", "archive", "--config", alone, "--output", path, "--up-to", "256"); err == nil || !strings.Contains(err.Error(), "only entries up to 0") {
		t.Errorf("before the witness has seen them: %v", err)
	}
	serveUntil(t, config, func(url string, log *buffer) {
		awaitWitnessed(t, seen, 256)
		log.await(t, "the audit log is what its witnesses have seen")
	})
	note(t, config, 300)
	if _, _, err := run(t.Context(), "audit", "archive", "--config", alone, "--output", path, "--up-to", "512"); err == nil || !strings.Contains(err.Error(), "only entries up to 256") {
		t.Errorf("without asking the witness: %v", err)
	}
	if err := os.Rename(seen, seen+".away"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := run(t.Context(), "audit", "archive", "--config", config, "--output", path); err == nil || !strings.Contains(err.Error(), "witness elsewhere") {
		t.Errorf("without the witness: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("an archive was written")
	}
	if err := os.Rename(seen+".away", seen); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "audit", "archive", "--config", config, "--output", path, "--up-to", "512")
	serveUntil(t, config, func(url string, _ *buffer) { awaitWitnessed(t, seen, 600) })
	mustRun(t, "audit", "verify", "--config", config, "--archive", path)
}

// TestArchiveWithKills: archiving is killed at any moment, while a server writes:
// every entry is in the log or in a whole archive, and the server goes on.
func TestArchiveWithKills(t *testing.T) {
	t.Parallel()
	dir, token, config := storeAndConfig(t, "")
	entries, kills := 2500, 3
	if os.Getenv("CCRUN_LONG") != "" {
		entries, kills = 20_000, 6
	}
	note(t, config, entries)
	_, url := process(t, nil, "--config", config)
	owner := admin(t, dir, url, token)
	out := t.TempDir()
	path := filepath.Join(out, "0")
	kill := func(i int) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "audit", "archive", "--config", config, "--output", path)
		cmd.Env = append(os.Environ(), asMain+"=1")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Int64N(int64(700 * time.Millisecond))))
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if _, err := owner.Register(t.Context(), registration(fmt.Sprint("w", i), i+1)); err != nil {
			t.Errorf("registering after a kill: %v", err)
		}
		args := []string{"audit", "verify", "--config", config}
		if _, err := os.Lstat(path); err == nil {
			args = append(args, "--archive", path)
		}
		if _, log, err := run(t.Context(), args...); err != nil || strings.Contains(log, "are in archives") {
			t.Fatalf("after kill %d: %q, %v", i, log, err)
		}
	}
	for i := range kills {
		kill(i)
	}
	// Whatever the last one left, it can be run again.
	if _, _, err := run(t.Context(), "audit", "archive", "--config", config, "--output", path); err != nil && !strings.Contains(err.Error(), "begins behind") {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path + ".part"); err == nil {
		t.Error("a part is left")
	}
	_, log, err := run(t.Context(), "audit", "verify", "--config", config, "--archive", path)
	if err != nil || strings.Contains(log, "are in archives") {
		t.Fatalf("%q, %v", log, err)
	}
	if _, err := owner.Register(t.Context(), registration("last", 99)); err != nil {
		t.Errorf("registering after the cut: %v", err)
	}
	mustRun(t, "audit", "verify", "--config", config, "--archive", path)
}
