package face

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Rules prints a table of rules, and below it those that failed, in full.
func Rules(w io.Writer, rules []kbs.Rule) error {
	t := Table(w)
	fmt.Fprintln(t, "PASS\tRULE\tEXPECTED\tGOT")
	for _, x := range rules {
		pass := "yes"
		if !x.Pass {
			pass = "NO"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", pass, Printable(x.Rule), Short(x.Expected), Short(x.Got))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range rules {
		if !x.Pass {
			printFailed(w, x)
		}
	}
	return nil
}

func printFailed(w io.Writer, x kbs.Rule) {
	fmt.Fprintf(w, "\n%s failed\n  expected  %s\n  got       %s\n", Printable(x.Rule), Printable(x.Expected), Printable(x.Got))
	if x.Level != "" {
		fmt.Fprintf(w, "  asked by  the policy of the %s\n", Printable(x.Level))
	}
	if x.Hint != "" {
		fmt.Fprintf(w, "  hint      %s\n", Printable(x.Hint))
	}
}

// shortLength is how many characters fit into a table's column.
const shortLength = 32

// Short is as much of s, made Printable, as fits into a table's column.
func Short(s string) string {
	s = Printable(s)
	if utf8.RuneCountInString(s) <= shortLength {
		return s
	}
	return string([]rune(s)[:shortLength-1]) + "…"
}

// Printable is s without what a terminal could take for a command: parts of
// what the server remembers were sent by hostile guests.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// Time is t in UTC, or none.
func Time(t *time.Time, none string) string {
	if t == nil {
		return none
	}
	return t.UTC().Format(time.RFC3339)
}

// Until reads a flag's point in time, or how long it is until then; nil for "".
func Until(flag, s string, now time.Time) (*time.Time, error) {
	if s == "" {
		return nil, nil
	}
	until, err := time.Parse(time.RFC3339, s)
	if d, derr := time.ParseDuration(s); derr == nil && d > 0 {
		until, err = now.Add(d), nil
	}
	if err != nil {
		return nil, Usagef("%s %q: expected a time as in 2027-01-31T00:00:00Z, or 720h", flag, s)
	}
	until = until.UTC().Truncate(time.Second)
	return &until, nil
}
