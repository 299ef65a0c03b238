package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
	attestcommand "github.com/ccrun/ccrun/cmd/attest-server/command"
	"github.com/ccrun/ccrun/cmd/face"
)

// fakeAudit is a server's log, which a test may change as its administrator can.
type fakeAudit struct {
	entries []kbs.AuditEntry
	by      []*checkpoint.Signer
	shown   int // entries in the checkpoint; 0: all

	archived int64 // entries that it has no more
}

const fakeOrigin = "ccrun/attest-server/test"

func monitorSigners(t *testing.T) (log, witness *checkpoint.Signer) {
	t.Helper()
	key := func(b byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{b}, ed25519.SeedSize))
	}
	log, err := checkpoint.LogSigner(fakeOrigin, key(1))
	if err != nil {
		t.Fatal(err)
	}
	witness, err = checkpoint.WitnessSigner("witness", key(2), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return log, witness
}

func (f *fakeAudit) add(action, object string, at time.Time) {
	e := kbs.AuditEntry{Sequence: int64(len(f.entries) + 1), At: at, Action: action, Object: object}
	f.entries = append(f.entries, e)
	f.link()
}

// link makes the chain whole again after a change.
func (f *fakeAudit) link() {
	prev := make([]byte, 32)
	for i := range f.entries {
		f.entries[i].Sequence = int64(i + 1)
		prev = f.entries[i].ChainHash(prev)
		f.entries[i].Hash = hex.EncodeToString(prev)
	}
}

func (f *fakeAudit) Checkpoint(context.Context) ([]byte, error) {
	var tree checkpoint.Tree
	n := f.shown
	if n == 0 {
		n = len(f.entries)
	}
	for _, e := range f.entries[:n] {
		b, err := hex.DecodeString(e.Hash)
		if err != nil {
			return nil, err
		}
		tree.Append(b)
	}
	return checkpoint.SignCheckpoint(checkpoint.Checkpoint{Origin: f.by[0].Name(), Size: tree.Size(), Root: tree.Root()}, f.by...)
}

func (f *fakeAudit) Audit(_ context.Context, after int64) (*kbs.AuditPage, error) {
	if after < f.archived {
		return &kbs.AuditPage{Entries: f.entries[f.archived:], Archived: new(time.Time)}, nil
	}
	return &kbs.AuditPage{Entries: f.entries[min(after, int64(len(f.entries))):min(after+3, int64(len(f.entries)))]}, nil
}

// TestMonitorSees: what a monitor that has seen a log before says of what the
// server shows it now.
func TestMonitorSees(t *testing.T) {
	log, w := monitorSigners(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	keys := monitorKeys{log: []checkpoint.Verifier{log.Verifier()}, witnesses: []checkpoint.Verifier{w.Verifier()}}
	for name, tc := range map[string]struct {
		change func(f *fakeAudit)
		want   string // "": nothing is wrong
		count  int
	}{
		"nothing":           {func(*fakeAudit) {}, "", 2},
		"one more":          {func(f *fakeAudit) { f.add("key.release", "shop", now); f.add("key.release", "other", now) }, "", 3},
		"not yet witnessed": {func(f *fakeAudit) { f.shown = len(f.entries); f.add("key.release", "shop", now) }, "", 2},
		"rolled back":       {func(f *fakeAudit) { f.entries = f.entries[:4] }, "an old copy", 0},
		"rolled back, grown": {func(f *fakeAudit) {
			f.entries = f.entries[:4]
			f.add("x", "", now)
			f.add("x", "", now)
			f.add("x", "", now)
		}, "does not follow", 0},
		"same size":        {func(f *fakeAudit) { f.entries = f.entries[:5]; f.add("x", "", now) }, "have root", 0},
		"a release hidden": {func(f *fakeAudit) { f.entries[1].Object = "other"; f.link() }, "have root", 0},
		"an entry left out": {func(f *fakeAudit) {
			f.add("key.release", "shop", now)
			f.add("x", "", now)
			f.entries = slices.Delete(f.entries, 6, 7)
		}, "comes after entry", 0},
		"an entry edited":  {func(f *fakeAudit) { f.add("key.release", "shop", now); f.entries[6].Object = "other" }, "does not follow", 0},
		"entries withheld": {func(f *fakeAudit) { f.add("x", "", now); f.shown = 7; f.entries[6].Sequence = 9 }, "comes after entry", 0},
		"another key": {func(f *fakeAudit) {
			f.by[0], _ = checkpoint.LogSigner(fakeOrigin, ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32)))
		}, "none of its log's keys", 0},
		"witness missing": {func(f *fakeAudit) { f.by = f.by[:1] }, "lacks the signature of witness witness", 0},
		"another log": {func(f *fakeAudit) {
			f.by[0], _ = checkpoint.LogSigner("ccrun/attest-server/other", ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)))
		}, "", 0},
	} {
		f := &fakeAudit{by: []*checkpoint.Signer{log, w}}
		for i, x := range []string{"x", "key.release", "x", "key.release", "key.refuse", "x"} {
			f.add(x, "shop", now.Add(time.Duration(i)))
		}
		first, err := seenLog{Workload: "shop"}.follow(t.Context(), f, keys)
		if err != nil || len(first.seen.Releases) != 2 || first.seen.Size != 6 {
			t.Fatalf("first: %+v, %v", first.seen, err)
		}
		tc.change(f)
		again, err := first.seen.follow(t.Context(), f, keys)
		if name == "another log" {
			if err == nil {
				t.Error("another log is taken")
			}
			continue
		}
		if tc.want == "" && (err != nil || len(again.seen.Releases) != tc.count) || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %d releases, %v, expected %q", name, len(again.seen.Releases), err, tc.want)
		}
	}
}

// TestMonitor runs the command against a server: within what is expected, over
// it, and against an older log.
func TestMonitor(t *testing.T) {
	startServer(t)
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	logKey := serverLogKey(t)
	args := []string{"monitor", "shop", "--expect", "0/1h", "--log-key", logKey, "--state", state}
	out, err := ccrun(args...)
	var r monitorResult
	if err != nil || json.Unmarshal([]byte(out), &r) != nil || !r.OK || r.Size == 0 || r.Releases != 0 || strings.Count(out, "\n") != 1 {
		t.Fatalf("monitor: %q, %v", out, err)
	}
	b, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	var seen seenLog
	if err := json.Unmarshal(b, &seen); err != nil || seen.Size != r.Size {
		t.Fatalf("state %s, %v", b, err)
	}
	seen.Releases = []time.Time{time.Now(), time.Now().Add(-2 * time.Hour)}
	if err := writeSeen(state, seen); err != nil {
		t.Fatal(err)
	}
	if out, err = ccrun(args...); face.Status(err) != 1 || !strings.Contains(out, `"releases":1,"expected":0`) || !strings.Contains(out, `"ok":false`) {
		t.Errorf("with a release too many: %q, %v", out, err)
	}
	seen.Size, seen.Edge = 7, nil
	if err := writeSeen(state, seen); err != nil {
		t.Fatal(err)
	}
	if out, err = ccrun(args...); err == nil {
		t.Errorf("with a broken state: %q", out)
	}
	for _, bad := range [][]string{
		{"monitor", "shop", "--expect", "1", "--log-key", logKey, "--state", state},
		{"monitor", "shop", "--expect", "-1/1h", "--log-key", logKey, "--state", state},
		{"monitor", "shop", "--expect", "1/0s", "--log-key", logKey, "--state", state},
		{"monitor", "shop", "--expect", "1/1h", "--log-key", "x", "--state", state},
		{"monitor", "shop", "--expect", "1/1h", "--log-key", logKey, "--witness-key", logKey, "--state", state},
	} {
		if _, err := ccrun(bad...); face.Status(err) != 2 {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if _, err := ccrun("monitor", "other", "--expect", "1/1h", "--log-key", logKey, "--state", state); err == nil || !strings.Contains(err.Error(), "it is of workload") {
		t.Errorf("another workload's state: %v", err)
	}
	wrong := strings.Replace(logKey, "ccrun/", "xcrun/", 1)
	if _, err := ccrun("monitor", "shop", "--expect", "1/1h", "--log-key", wrong, "--state", filepath.Join(dir, "new")); err == nil {
		t.Error("a key that is not whole is taken")
	}
}

// serverLogKey is what `attest-server audit key` prints on startServer's.
func serverLogKey(t *testing.T) string {
	t.Helper()
	app := attestcommand.Program{Program: face.Program{Name: "attest-server"}}.App()
	var out bytes.Buffer
	app.Writer = &out
	if err := app.Run([]string{"attest-server", "audit", "key", "--data", filepath.Dir(os.Getenv("CCRUN_CA"))}); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out.String())
}

// TestMonitorReadsArchives: the first entries of a log that was archived come from
// the files, and are checked like the server's.
func TestMonitorReadsArchives(t *testing.T) {
	log, _ := monitorSigners(t)
	now := time.Now().UTC().Truncate(time.Millisecond)
	keys := monitorKeys{log: []checkpoint.Verifier{log.Verifier()}}
	f := &fakeAudit{by: []*checkpoint.Signer{log}}
	for range 9 {
		f.add("key.release", "shop", now)
	}
	one, two := writeArchive(t, f.entries, 0, 3), writeArchive(t, f.entries, 3, 6)
	f.archived = 6
	if _, err := (seenLog{Workload: "shop"}).follow(t.Context(), f, keys); err == nil || !strings.Contains(err.Error(), "entries 1 to 6 were archived") {
		t.Errorf("without the archives: %v", err)
	}
	hidden := slices.Clone(f.entries)
	hidden[1].Object = "other"
	(&fakeAudit{entries: hidden}).link()
	for name, x := range map[string]struct {
		paths []string
		want  string
	}{
		"both":       {[]string{two, one}, ""},
		"the first":  {[]string{one}, "entries 4 to 6 were archived"},
		"the second": {[]string{two}, "comes after entry 0"},
		"forged":     {[]string{writeArchive(t, hidden, 0, 6)}, "does not follow"},
	} {
		source, err := withArchives(f, x.paths)
		if err != nil {
			t.Fatal(err)
		}
		m, err := seenLog{Workload: "shop"}.follow(t.Context(), source, keys)
		if x.want == "" && (err != nil || len(m.seen.Releases) != 9) || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %d releases, %v, expected %q", name, len(m.seen.Releases), err, x.want)
		}
		if err := source.close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := withArchives(f, []string{one, filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a file that is not there is taken")
	}
}

// writeArchive is a file with the entries after from, up to number to.
func writeArchive(t *testing.T, all []kbs.AuditEntry, from, to int) string {
	t.Helper()
	k := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))
	b := kbs.AuditBase{Sequence: int64(to), Hash: all[to-1].Hash, Root: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", PublicKey: k.Public().(ed25519.PublicKey)}
	m, err := b.Message()
	if err != nil {
		t.Fatal(err)
	}
	b.Signature = ed25519.Sign(k, m)
	before := strings.Repeat("00", 32)
	if from > 0 {
		before = all[from-1].Hash
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "archive"))
	if err != nil {
		t.Fatal(err)
	}
	err = kbs.WriteArchive(file, int64(from), before, func(each func(kbs.AuditEntry) error) (err error) {
		for _, e := range all[from:to] {
			err = errors.Join(err, each(e))
		}
		return err
	}, b)
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}
