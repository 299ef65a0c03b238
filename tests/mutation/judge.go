package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A verdict is what became of a mutant. Only killed is good.
type verdict string

const (
	killed   verdict = "killed"
	survived verdict = "survived"
	// broken: does not compile, or its tests fail, or are none, without it.
	broken verdict = "broken"
	// undecided: the tests ended in another way than by failing: by their time
	// limit, or by a signal from outside.
	undecided verdict = "undecided"
)

// outcome is one mutant's, as kept in the state file.
type outcome struct {
	Key     string   `json:"key"` // of what it was judged on
	Verdict verdict  `json:"verdict"`
	By      []string `json:"by,omitempty"` // the tests that failed
	Detail  string   `json:"detail,omitempty"`
	Seconds float64  `json:"seconds"`
	Commit  string   `json:"commit"`
}

// testLimit bounds the tests of one mutant. It is for what hangs; slow machines
// must not reach it.
const testLimit = 10 * time.Minute

// judge runs mutants in the tree at root, which it does not change: Go's
// -overlay puts the changed files in place of those on disk.
type judge struct {
	root  string
	tmp   string
	fails map[string][]string // baseline by package and pattern
}

func (j *judge) run(ctx context.Context, m mutant) outcome {
	start := time.Now()
	o := j.decide(ctx, m)
	o.Seconds = time.Since(start).Round(100 * time.Millisecond).Seconds()
	return o
}

func (j *judge) decide(ctx context.Context, m mutant) outcome {
	files, err := m.apply(j.root)
	if err != nil {
		return outcome{Verdict: broken, Detail: err.Error()}
	}
	overlay, err := j.overlay(files)
	if err != nil {
		return outcome{Verdict: undecided, Detail: err.Error()}
	}
	for _, pkg := range m.tests {
		if o := j.inPackage(ctx, m, pkg, overlay); o.Verdict != survived {
			return o
		}
	}
	return outcome{Verdict: survived}
}

// baseline is those of a package's tests that fail without any mutant: they kill
// nothing. Go remembers the result, so this is dear only once.
func (j *judge) baseline(ctx context.Context, pkg, pattern string) ([]string, error) {
	what := pkg + " " + pattern
	if fail, known := j.fails[what]; known {
		return fail, nil
	}
	out, err := j.command(ctx, j.root, nil, "go", "test", "-vet=off", "-timeout", testLimit.String(), "-run", pattern, pkg)
	fail := failedTests(out)
	if err != nil && len(fail) == 0 {
		return nil, fmt.Errorf("tests of %s do not run without the mutant: %s", pkg, tail(out))
	}
	j.fails[what] = fail
	return fail, nil
}

// overlay writes the changed files, and what tells Go of them.
func (j *judge) overlay(files map[string][]byte) (string, error) {
	replace := map[string]string{}
	for name, b := range files {
		copied := filepath.Join(j.tmp, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(copied, b, 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(j.root, name)] = copied
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(j.tmp, "overlay.json")
	return name, os.WriteFile(name, b, 0o600)
}

// inPackage builds the mutant's test binary and runs it, in two steps: a mutant
// that does not compile is not a killed one.
func (j *judge) inPackage(ctx context.Context, m mutant, pkg, overlay string) outcome {
	anyway, err := j.baseline(ctx, pkg, m.run)
	if err != nil {
		return outcome{Verdict: broken, Detail: err.Error()}
	}
	binary := filepath.Join(j.tmp, "mutant.test")
	flags := strings.TrimSpace(os.Getenv("GOFLAGS") + " -overlay=" + overlay) // also for what tests build
	env := []string{"GOFLAGS=" + flags}
	if out, err := j.command(ctx, j.root, env, "go", "test", "-c", "-vet=off", "-o", binary, pkg); err != nil {
		return outcome{Verdict: broken, Detail: "does not compile: " + tail(out)}
	}
	dir := filepath.Join(j.root, pkg)
	if list, err := j.command(ctx, dir, env, binary, "-test.list", cmp.Or(m.run, ".")); err != nil || !strings.Contains(list, "Test") && !strings.Contains(list, "Fuzz") {
		return outcome{Verdict: broken, Detail: fmt.Sprintf("no test of %s is called %s (%v)", pkg, m.run, err)}
	}
	ctx, cancel := context.WithTimeout(ctx, testLimit+time.Minute)
	defer cancel()
	out, err := j.command(ctx, dir, env, binary, "-test.run", m.run, "-test.timeout", testLimit.String())
	if err == nil {
		return outcome{Verdict: survived}
	}
	failed := failedTests(out)
	by := slices.DeleteFunc(slices.Clone(failed), func(name string) bool { return slices.Contains(anyway, name) })
	switch {
	case strings.Contains(out, "panic: test timed out"):
		return outcome{Verdict: undecided, Detail: "the tests' time was up"}
	case len(by) > 0:
		return outcome{Verdict: killed, By: by}
	case len(failed) > 0:
		return outcome{Verdict: survived, Detail: "only tests fail that fail anyway"}
	case strings.Contains(out, "\npanic: ") || strings.HasPrefix(out, "panic: "):
		return outcome{Verdict: killed, By: []string{"a panic"}}
	}
	return outcome{Verdict: undecided, Detail: err.Error() + ": " + tail(out)}
}

func (j *judge) command(ctx context.Context, dir string, env []string, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), env...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.String(), err
}

var failedTest = regexp.MustCompile(`(?m)^--- FAIL: ([A-Za-z0-9_]+)`)

func failedTests(out string) []string {
	var list []string
	for _, f := range failedTest.FindAllStringSubmatch(out, -1) {
		list = append(list, f[1])
	}
	return slices.Compact(list)
}

func tail(out string) string {
	const most = 400
	out = strings.TrimSpace(out)
	return strings.ReplaceAll(out[max(0, len(out)-most):], "\n", " | ")
}
