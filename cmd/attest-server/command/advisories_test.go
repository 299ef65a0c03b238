package command

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/hint"
)

// signer signs tables of any version and date for one key.
type signer struct {
	t                *testing.T
	dir, key, public string
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	s := &signer{t: t, dir: t.TempDir()}
	s.key = filepath.Join(s.dir, "key")
	s.public = strings.TrimSpace(mustRun(t, "advisories", "keygen", "ops.example.com", s.key))
	return s
}

// table is a configuration's [policy] with the built-in table at another
// version and date.
func (s *signer) table(version int, date string) string {
	s.t.Helper()
	text := mustRun(s.t, "advisories", "show", "--format", "json")
	text = regexp.MustCompile(`"version": \d+`).ReplaceAllString(text, fmt.Sprintf(`"version": %d`, version))
	text = regexp.MustCompile(`"date": "[^"]*"`).ReplaceAllString(text, fmt.Sprintf(`"date": %q`, date))
	path := filepath.Join(s.dir, fmt.Sprintf("%d-%s.note", version, date))
	if err := os.WriteFile(path, []byte(mustRun(s.t, "advisories", "sign", "--key-file", s.key, written(s.t, text))), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("[policy]\nadvisories = %q\nadvisory_key = %q\n", path, s.public)
}

// TestAdvisoriesNeverGoBack: a table takes the built-in one's place, and no
// older one ever takes its: not at a reload, not after a restart, not by taking
// the setting away. What is refused changes nothing.
func TestAdvisoriesNeverGoBack(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	dir, _ := initDir(t)
	config := func(text string) string { return written(t, text) }
	_, stop := serve(t, "--data", dir, "--config", config(s.table(5, "2026-11-30")))
	if log, err := stop(); err != nil || !strings.Contains(log, "table 5 of 2026-11-30") {
		t.Fatalf("%v\n%s", err, log)
	}
	cut := s.table(6, "2026-12-01")
	path := regexp.MustCompile(`advisories = "(.*)"`).FindStringSubmatch(cut)[1]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b[:len(b)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"none":            "",
		"older":           s.table(4, "2026-11-30"),
		"older by date":   s.table(7, "2026-11-29"),
		"another of five": strings.Replace(s.table(5, "2026-12-01"), "2026-11-30", "2026-12-01", 1),
		"from the future": s.table(6, "9999-12-31"),
		"another's":       strings.Replace(other.table(6, "2026-12-01"), other.public, s.public, 1),
		"cut":             cut,
		"no key":          fmt.Sprintf("[policy]\nadvisories = %q\n", path),
		"no file":         fmt.Sprintf("[policy]\nadvisory_key = %q\n", s.public),
		"empty":           fmt.Sprintf("[policy]\nadvisories = \"\"\nadvisory_key = %q\n", s.public),
		"no text":         fmt.Sprintf("[policy]\nadvisories = 1\nadvisory_key = %q\n", s.public),
		"none at all":     "[policy]\nnone = true\n",
	} {
		for _, check := range [][]string{{"--check-config"}, nil} {
			_, _, err := run(t.Context(), append([]string{"serve", "--listen", "127.0.0.1:0", "--data", dir, "--config", config(text)}, check...)...)
			if err == nil || hint.Of(err) == "" && name != "empty" && name != "no text" {
				t.Errorf("%s %v: %v, %q", name, check, err, hint.Of(err))
			}
			if older := strings.HasPrefix(name, "older") || strings.HasPrefix(name, "none"); older && !errors.Is(err, advisory.ErrOlder) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	_, stop = serve(t, "--data", dir, "--config", config(s.table(6, "2026-11-30")))
	if log, err := stop(); err != nil || !strings.Contains(log, "table 5 of 2026-11-30 -> table 6 of 2026-11-30") {
		t.Fatalf("%v\n%s", err, log)
	}
	if out := mustRun(t, "audit", "export", "--data", dir); !strings.Contains(out, `table 5 of 2026-11-30 -\u003e table 6 of 2026-11-30`) {
		t.Errorf("not audited:\n%s", out)
	}
}

// TestAdvisoriesReload: SIGHUP takes a newer table and keeps it from an older
// one.
func TestAdvisoriesReload(t *testing.T) {
	s, r := newSigner(t), newReloadRig(t)
	two, three := s.table(2, "2026-11-30"), s.table(3, "2026-11-30")
	policy := func(table string) string { return r.configuration("\n" + table + vcekAlone[1:]) }
	r.write(policy(three))
	r.reload("advisories table 1 of 2026-11-30 -> table 3 of 2026-11-30")
	before := r.seen()
	r.write(policy(two))
	r.reload(refusedLine)
	if !strings.Contains(r.log.String(), "table 2 of 2026-11-30, expected table 3 of 2026-11-30 or a later one") {
		t.Error(r.log.String())
	}
	if after := r.seen(); after != before {
		t.Errorf("%s became %s", before, after)
	}
}

// TestAdvisoriesCommands: a table that is shown, signed and verified stays the
// same; a key is for its owner's eyes, and never printed.
func TestAdvisoriesCommands(t *testing.T) {
	s := newSigner(t)
	path := regexp.MustCompile(`advisories = "(.*)"`).FindStringSubmatch(s.table(2, "2026-11-30"))[1]
	if out := mustRun(t, "advisories", "verify", "--advisory-key", s.public, path); !strings.HasPrefix(out, "table 2 of 2026-11-30: 8 advisories") {
		t.Error(out)
	}
	shown := mustRun(t, "advisories", "show", "--advisories", path, "--advisory-key", s.public)
	for _, want := range []string{"table 2 of 2026-11-30", "\nAMD-SB-3030  BreakFAST", "   19/01/1  Milan B1             SNP at least 29, mitigation bit 4 on\n", "any firmware: a warning", "TCB evaluation at least 20"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in\n%s", want, shown)
		}
	}
	info, err := os.Stat(s.key)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	key, err := os.ReadFile(s.key)
	if err != nil || strings.Contains(s.public, strings.TrimSpace(string(key))) {
		t.Errorf("the key is printed, or not there: %v", err)
	}
	for name, args := range map[string][]string{
		"over a key":          {"keygen", "ops.example.com", s.key},
		"a name of two words": {"keygen", "ops example", filepath.Join(s.dir, "new")},
		"no table":            {"sign", "--key-file", s.key, written(t, "{}")},
		"not a key":           {"sign", "--key-file", path, path},
		"unsigned":            {"verify", "--advisory-key", s.public, written(t, "{}")},
		"older than built in": {"verify", "--advisory-key", s.public, regexp.MustCompile(`advisories = "(.*)"`).FindStringSubmatch(s.table(1, "2026-11-29"))[1]},
		"half":                {"show", "--advisories", path},
	} {
		if out, log, err := run(t.Context(), append([]string{"advisories"}, args...)...); err == nil || strings.Contains(out+log, strings.TrimSpace(string(key))) {
			t.Errorf("%s: %v\n%s%s", name, err, out, log)
		}
	}
}
