package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Files from the module's root.
const (
	survivorsFile = "tests/mutation/survivors.txt"
	resultsFile   = "docs/mutation.md"
)

// readSurvivors reads the mutants that may survive: an ID and the reason, one
// a line. A name that no mutant has is an error.
func readSurvivors(file string, all []mutant) (map[string]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	excused := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		id, reason, _ := strings.Cut(line, " ")
		switch {
		case strings.TrimSpace(reason) == "":
			return nil, fmt.Errorf("%s: %s without a reason", file, id)
		case !slices.ContainsFunc(all, func(m mutant) bool { return m.id == id }):
			return nil, fmt.Errorf("%s: no mutant is called %s", file, id)
		}
		excused[id] = strings.TrimSpace(reason)
	}
	return excused, nil
}

// summary is what came out of a run.
type summary struct {
	commit  string
	commits map[string]bool
	took    float64 // seconds, of each mutant when it was judged
	count   map[verdict]int
	// unexpected are what survived without an excuse, or came to no verdict;
	// needless are excused and killed all the same.
	unexpected, needless []string
}

func summarize(list []mutant, known map[string]outcome, commit string, excused map[string]string) *summary {
	s := &summary{commit: commit, commits: map[string]bool{}, count: map[verdict]int{}}
	for _, m := range list {
		o := known[m.id]
		s.count[o.Verdict]++
		s.took += o.Seconds
		s.commits[o.Commit] = true
		_, may := excused[m.id]
		switch {
		case o.Verdict == survived && may:
		case o.Verdict != killed:
			s.unexpected = append(s.unexpected, fmt.Sprintf("%s %s: %s %s", o.Verdict, m.id, m.means, o.Detail))
		case may:
			s.needless = append(s.needless, m.id)
		}
	}
	return s
}

func (s *summary) total() int {
	n := 0
	for _, c := range s.count {
		n += c
	}
	return n
}

func (s *summary) String() string {
	return fmt.Sprintf("%d mutants: %d killed, %d survived, %d broken, %d undecided; %.0f s",
		s.total(), s.count[killed], s.count[survived], s.count[broken], s.count[undecided], s.took)
}

// problem is nil if every mutant was killed, but for those that may survive.
func (s *summary) problem() error {
	if len(s.unexpected)+len(s.needless) == 0 {
		return nil
	}
	text := strings.Join(s.unexpected, "\n")
	if len(s.needless) > 0 {
		text += fmt.Sprintf("\nkilled by now, take them out of %s: %s", survivorsFile, strings.Join(s.needless, " "))
	}
	return fmt.Errorf("not as expected:\n%s", strings.TrimSpace(text))
}

// append adds a row to the table of results.
func (s *summary) append(file string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "| %s | %s | %d | %d | %d | %d | %d min |\n", time.Now().UTC().Format(time.DateOnly), s.commit,
		s.total(), s.count[killed], s.count[survived], len(s.commits), int(s.took+59)/60)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}
