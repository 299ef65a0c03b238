package tests

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// difference is one item that is not as plain Podman has it: + only ours has
// it, - only Podman's has it, ≠ the values differ.
type difference struct{ item, theirs, ours string }

func compareItems(theirs, ours map[string]string) (all []difference) {
	for _, stream := range []string{"stdout", "stderr"} {
		all = append(all, compareLines(stream, theirs[stream], ours[stream])...)
		delete(theirs, stream)
		delete(ours, stream)
	}
	for item, value := range theirs {
		got, ok := ours[item]
		switch {
		case !ok:
			all = append(all, difference{"- " + item, value, ""})
		case got != value:
			all = append(all, difference{"≠ " + item, value, got})
		}
	}
	for item, value := range ours {
		if _, ok := theirs[item]; !ok {
			all = append(all, difference{"+ " + item, "", value})
		}
	}
	slices.SortFunc(all, func(a, b difference) int { return cmp.Compare(a.item, b.item) })
	return all
}

// compareLines names the lines that only one has, so that a row of the table
// can be about one.
func compareLines(stream, theirs, ours string) (all []difference) {
	count := map[string]int{}
	for line := range strings.Lines(theirs) {
		count[line]++
	}
	for line := range strings.Lines(ours) {
		count[line]--
	}
	for line, n := range count {
		switch quoted := strings.Trim(fmt.Sprintf("%q", line), `"`); {
		case n > 0:
			all = append(all, difference{"- " + stream + ": " + quoted, line, ""})
		case n < 0:
			all = append(all, difference{"+ " + stream + ": " + quoted, "", line})
		}
	}
	if len(all) == 0 && theirs != ours {
		all = append(all, difference{"≠ order of " + stream, theirs, ours})
	}
	return all
}

// differences is what was seen, by run: IMAGE/FILESYSTEM.
type differences map[string][]difference

func (d differences) add(run string, all []difference) { d[run] = all }

// documented is a row of the table: items by pattern, and the runs that have it.
type documented struct {
	pattern string
	items   *regexp.Regexp
	where   []string
	podman  string // major version of the one that it is about; empty: each
}

// under leaves the rows that hold for a version of Podman.
func under(version string, rows []documented) []documented {
	return slices.DeleteFunc(slices.Clone(rows), func(r documented) bool { return r.podman != "" && r.podman != version })
}

// of says whether the row holds for a run: "every", an image, a file system or
// both (image/fs), with "not" before one for an exception.
func (r documented) of(run string) (is bool) {
	image, fs, _ := strings.Cut(run, "/")
	for _, word := range r.where {
		except := strings.HasPrefix(word, "not ")
		switch strings.TrimPrefix(word, "not ") {
		case "every", image, fs, run:
			is = !except
		}
	}
	return is
}

// judge complains of what is seen and not documented, and of what is documented
// and not seen.
func (d differences) judge(rows []documented) (complaints []string) {
	unlisted := map[string][]string{}
	for _, run := range slices.Sorted(maps.Keys(d)) {
		met := make([]bool, len(rows))
		for _, x := range d[run] {
			listed := false
			for i, r := range rows {
				if r.of(run) && r.items.MatchString(x.item) {
					met[i], listed = true, true
				}
			}
			if !listed {
				row := fmt.Sprintf("| `%s` | %%s | `%.300q` | `%.300q` |", x.item, x.theirs, x.ours)
				unlisted[row] = append(unlisted[row], run)
			}
		}
		for i, r := range rows {
			if r.of(run) && !met[i] {
				complaints = append(complaints, fmt.Sprintf("%s: docs/podman-differences.md lists %q, which did not occur", run, r.pattern))
			}
		}
	}
	for _, row := range slices.Sorted(maps.Keys(unlisted)) {
		complaints = append(complaints, "docs/podman-differences.md does not list: "+strings.Replace(row, "| %s |", "| "+strings.Join(unlisted[row], ", ")+" |", 1))
	}
	return complaints
}

func patternOf(text string) *regexp.Regexp {
	return regexp.MustCompile("^" + strings.ReplaceAll(regexp.QuoteMeta(text), `\*`, ".*") + "$")
}

func documentedDifferences(t *testing.T) (rows []documented) {
	t.Helper()
	b, err := os.ReadFile("../docs/podman-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(b), "## Observed on the corpus\n")
	if !found {
		t.Fatal("docs/podman-differences.md has no section \"Observed on the corpus\"")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 6 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		pattern := strings.Trim(cells[1], " `")
		runs, podman, _ := strings.Cut(strings.TrimSpace(cells[2]), "; Podman ")
		where := strings.Split(runs, ", ")
		if strings.TrimSpace(cells[len(cells)-2]) == "" {
			t.Errorf("no reason for %q", pattern)
		}
		rows = append(rows, documented{pattern, patternOf(pattern), where, podman})
	}
	return rows
}

// TestDifferencesJudged: one too many, and one too few.
func TestDifferencesJudged(t *testing.T) {
	rows := documentedDifferences(t)
	if len(rows) < 10 {
		t.Fatalf("the table has %d rows", len(rows))
	}
	theirs := map[string]string{"umask": "0022", "stdout": "a\nb\n"}
	ours := map[string]string{"umask": "0077", "stdout": "b\nc\n", "pid": "1"}
	seen := differences{"x/ext4": compareItems(theirs, ours)}
	listed := func(pattern, where string) documented {
		return documented{pattern, patternOf(pattern), strings.Split(where, ", "), ""}
	}
	all := []documented{listed("≠ umask", "every"), listed("+ *id", "ext4"), listed("? stdout: *", "none"), listed(`- stdout: a\n`, "x"), listed(`+ stdout: c\n`, "y, x/ext4")}
	if got := seen.judge(all); len(got) != 0 {
		t.Errorf("all is listed, but: %q", got)
	}
	today := append(slices.Clone(all), listed("≠ cwd", "every"))
	today[len(today)-1].podman = "5"
	if got := seen.judge(under("4", today)); len(got) != 0 {
		t.Errorf("a row of another Podman's: %q", got)
	}
	for _, c := range []struct {
		rows []documented
		want string
	}{
		{under("5", today), "lists \"≠ cwd\", which did not occur"},
		{all[1:], "does not list: | `≠ umask` | x/ext4 |"},
		{append(slices.Clone(all), listed("≠ cwd", "every, not y")), "lists \"≠ cwd\", which did not occur"},
		{append(slices.Clone(all[1:]), listed("≠ umask", "every, not x")), "does not list: | `≠ umask`"},
	} {
		if got := seen.judge(c.rows); len(got) != 1 || !strings.Contains(got[0], c.want) {
			t.Errorf("got %q, expected %q", got, c.want)
		}
	}
}
