package main

import (
	"bytes"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A mutant is one security condition taken out of the program. Tests that still
// pass with it do not watch that condition.
type mutant struct {
	id      string
	means   string // what is wrong with the program then
	changes []change
	tests   []string // packages, as ./dir
	run     string   // pattern of the tests that ought to notice; empty: all
}

// change puts one text in the place of another that is in the file once.
type change struct{ file, old, new string }

// readList reads every list in dir, in the order of their names. Lines are
//
//	mutant ID what it means
//	file   PATH, from the module's root; may come again
//	test   ./PACKAGE...
//	run    PATTERN
//	- old text
//	+ new text
//
// where lines that begin with - belong together, and without one with + the
// text is left out. Another - after a + begins another change of the same file.
// Empty lines and those that begin with # say nothing.
func readList(dir string) ([]mutant, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("no lists of mutants in %s (%v)", dir, err)
	}
	var all []mutant
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		list, err := parseList(string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, list...)
	}
	seen := map[string]bool{}
	for _, m := range all {
		if err := m.complete(); err != nil {
			return nil, fmt.Errorf("mutant %s: %w", m.id, err)
		}
		if seen[m.id] {
			return nil, fmt.Errorf("two mutants are called %s", m.id)
		}
		seen[m.id] = true
	}
	return all, nil
}

// listParser is where in a list parseList is.
type listParser struct {
	all  []mutant
	file string
	last byte // '-', '+', or 0 after any other line
}

func parseList(text string) ([]mutant, error) {
	var p listParser
	for n, line := range strings.Split(text, "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
	}
	return p.all, nil
}

func (p *listParser) line(line string) error {
	word, rest, _ := strings.Cut(line, " ")
	if word == "mutant" {
		id, means, _ := strings.Cut(rest, " ")
		p.all = append(p.all, mutant{id: id, means: strings.TrimSpace(means)})
		p.file, p.last = "", 0
		return nil
	}
	if len(p.all) == 0 {
		return fmt.Errorf("%q before the first mutant", word)
	}
	m := &p.all[len(p.all)-1]
	switch word {
	case "file":
		p.file, p.last = strings.TrimSpace(rest), 0
	case "test":
		m.tests = append(m.tests, strings.Fields(rest)...)
	case "run":
		m.run = strings.TrimSpace(rest)
	case "-", "+":
		return p.text(m, word[0], rest)
	default:
		return fmt.Errorf("begins with %q, expected mutant, file, test, run, - or +", word)
	}
	return nil
}

// text adds a line to the change that m is at, or begins one.
func (p *listParser) text(m *mutant, sign byte, text string) error {
	begins := sign == '-' && p.last != '-'
	if p.file == "" || !begins && len(m.changes) == 0 {
		return fmt.Errorf("a change without a file, or + without -")
	}
	if begins {
		m.changes = append(m.changes, change{file: p.file, old: text})
		p.last = sign
		return nil
	}
	c := &m.changes[len(m.changes)-1]
	switch {
	case sign == '-':
		c.old += "\n" + text
	case p.last == '-':
		c.new = text
	default:
		c.new += "\n" + text
	}
	p.last = sign
	return nil
}

func (m *mutant) complete() error {
	switch {
	case m.id == "" || m.means == "":
		return fmt.Errorf("without a name, or without what it means")
	case len(m.tests) == 0 || len(m.changes) == 0:
		return fmt.Errorf("without packages to test, or without a change")
	}
	return nil
}

// apply returns the changed files, by path from root. Each old text must be
// there once, and the file must still be Go in gofmt's sense of it.
func (m *mutant) apply(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, c := range m.changes {
		if files[c.file] == nil {
			b, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil {
				return nil, err
			}
			files[c.file] = b
		}
		b := files[c.file]
		if n := bytes.Count(b, []byte(c.old)); n != 1 {
			return nil, fmt.Errorf("%s has the text %d times, expected once: %q", c.file, n, c.old)
		}
		files[c.file] = bytes.Replace(b, []byte(c.old), []byte(c.new), 1)
	}
	for name, b := range files {
		if _, err := parser.ParseFile(token.NewFileSet(), name, b, parser.SkipObjectResolution); err != nil {
			return nil, fmt.Errorf("changed file is not Go any more: %w", err)
		}
	}
	return files, nil
}

// dirs are those whose content decides what becomes of m.
func (m *mutant) dirs() []string {
	var list []string
	for _, t := range m.tests {
		list = append(list, filepath.Clean(t))
	}
	for _, c := range m.changes {
		list = append(list, filepath.Dir(c.file))
	}
	slices.Sort(list)
	return slices.Compact(list)
}
