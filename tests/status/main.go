// Command status writes into docs/status.md how the end-to-end tests ended that
// the page's table names: feature by feature, and where they ran.
//
// usage: go run ./tests/status CACHE/e2e
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const page = "docs/status.md"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./tests/status CACHE/e2e, where tests/e2e.sh leaves its logs")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "status:", err)
		os.Exit(1)
	}
}

func write(logs string) error {
	all, err := readRun(logs)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	next, err := generate(string(text), all)
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(next), 0o644)
}

// run is what the logs of one run of the end-to-end tests say.
type run struct {
	date   string
	commit string
	// ended is how a test ended, by where it ran, and its name.
	ended map[place]map[string]string
}

// place is a column of the generated table.
type place string

const (
	simulator place = "simulator, Podman 4.3"
	rig       place = "rig, Podman 4.3"
	trixie    place = "Debian 13: Podman 5.4"
	sid       place = "Debian sid"
	ovmf      place = "QEMU with OVMF"
	hardware  place = "hardware"
)

func places() []place { return []place{simulator, rig, trixie, sid, ovmf, hardware} }

var result = regexp.MustCompile(`(?m)^( *)--- (PASS|FAIL|SKIP): (Test\w+) \(`)

func readRun(dir string) (run, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "Test*.log"))
	if err != nil || len(paths) == 0 {
		return run{}, errors.Join(fmt.Errorf("%s has no logs: make test-e2e", dir), err)
	}
	r := run{commit: "unknown", ended: map[place]map[string]string{}}
	var last time.Time
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return run{}, err
		}
		info, err := os.Stat(path)
		if err != nil {
			return run{}, err
		}
		if info.ModTime().After(last) {
			last = info.ModTime()
		}
		r.add(strings.TrimSuffix(filepath.Base(path), ".log"), b)
	}
	r.date = last.UTC().Format(time.DateOnly)
	commit, err := os.ReadFile(filepath.Join(dir, "commit"))
	if err == nil {
		r.commit = strings.TrimSpace(string(commit))
	} else if !errors.Is(err, fs.ErrNotExist) {
		return run{}, err
	}
	return r, nil
}

// add takes a log in. The suites in roots of other releases have the logs of
// tests there within theirs, indented.
func (r run) add(suite string, log []byte) {
	there, inner := map[string]place{"TestDebian13": trixie, "TestDebianSid": sid}[suite]
	for _, m := range result.FindAllSubmatch(log, -1) {
		where := simulator // or the rig: a row says which
		if inner && len(m[1]) > 0 {
			where = there
		} else if len(m[1]) > 0 {
			continue
		}
		if r.ended[where] == nil {
			r.ended[where] = map[string]string{}
		}
		if name := string(m[3]); r.ended[where][name] != "FAIL" { // there a test is named by its suite, too
			r.ended[where][name] = string(m[2])
		}
	}
}

const (
	begin = "<!-- What follows is written by `go run ./tests/status`. -->\n"
	named = "`tests: (Test\\w+)`"
)

// generate is the page with the results of a run in place of those it had.
func generate(text string, r run) (string, error) {
	head, _, found := strings.Cut(text, begin)
	if !found {
		return "", fmt.Errorf("%s has no line %q", page, begin)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s%s\n## The last run\n\n", head, begin)
	fmt.Fprintf(&out, "Of %s, commit %s: how the end-to-end tests ended that the table above names, by the\nsimulator or the rig, and again in roots of other releases. Features that only unit tests show\nare left out. –: no test is named there.\n\n", r.date, r.commit)
	fmt.Fprint(&out, "| feature |")
	for _, p := range places() {
		fmt.Fprintf(&out, " %s |", p)
	}
	fmt.Fprintf(&out, "\n|---|%s\n", strings.Repeat("---|", len(places())))
	rows := features(head)
	if len(rows) == 0 {
		return "", fmt.Errorf("%s has no table of features", page)
	}
	for _, f := range rows {
		if len(f.tests) == 0 {
			continue
		}
		fmt.Fprintf(&out, "| %s |", f.name)
		for _, p := range places() {
			fmt.Fprintf(&out, " %s |", r.cell(f, p))
		}
		fmt.Fprintln(&out)
	}
	return out.String(), nil
}

// feature is a row of the table that people write: the tests of its columns
// simulator and rig.
type feature struct {
	name  string
	tests map[place][]string
}

func features(text string) (all []feature) {
	for line := range strings.Lines(text) {
		columns := strings.Split(strings.TrimSpace(line), " | ")
		if len(columns) != 5 || !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| feature |") {
			continue
		}
		f := feature{strings.TrimPrefix(columns[0], "| "), map[place][]string{}}
		for p, column := range map[place]int{simulator: 2, rig: 3} {
			for _, m := range regexp.MustCompile(named).FindAllStringSubmatch(columns[column], -1) {
				if strings.Contains(m[1], "OVMF") || m[1] == "TestProductionCommandEnds" {
					f.tests[ovmf] = append(f.tests[ovmf], m[1])
				} else {
					f.tests[p] = append(f.tests[p], m[1])
				}
			}
		}
		all = append(all, f)
	}
	return all
}

// cell says how the feature's tests ended at a place.
func (r run) cell(f feature, p place) string {
	if p == hardware {
		return "never"
	}
	tests, ended := f.tests[p], r.ended[simulator]
	if p == trixie || p == sid {
		tests, ended = append(append(tests, f.tests[simulator]...), f.tests[rig]...), r.ended[p]
	}
	count := map[string]int{}
	var failed []string
	for _, t := range tests {
		switch ended[t] {
		case "FAIL":
			failed = append(failed, t)
		case "":
			if p != trixie && p != sid {
				count["not run"]++
			}
		default:
			count[map[string]string{"PASS": "passed", "SKIP": "skipped"}[ended[t]]]++
		}
	}
	var parts []string
	if len(failed) > 0 {
		parts = append(parts, "**failed: "+strings.Join(failed, ", ")+"**")
	}
	for _, how := range []string{"passed", "skipped", "not run"} {
		if count[how] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", count[how], how))
		}
	}
	if len(parts) == 0 {
		return "–"
	}
	return strings.Join(parts, ", ")
}
