// Package facetest finds the command lines of a program that documents, help
// texts and hints hold, and tells whether the program has what they say:
// commands, subcommands and flags.
package facetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Line is one command line, and where it stands.
type Line struct {
	Where string
	Words []string // after the program's name
}

func (l Line) String() string { return l.Where + ": " + strings.Join(l.Words, " ") }

// Check fails t for each line that app would not take, and returns how many
// there were. raw names the commands whose arguments are a command line of
// somebody else's.
func Check(t *testing.T, app *cli.App, lines []Line, raw ...string) int {
	t.Helper()
	for _, l := range lines {
		if err := Parses(app, l.Words, raw...); err != nil {
			t.Errorf("%s: %s %s: %v", l.Where, app.Name, strings.Join(l.Words, " "), err)
		}
	}
	return len(lines)
}

// Parses says what of words app does not have.
func Parses(app *cli.App, words []string, raw ...string) error {
	if len(words) == 2 && words[1] == "v1" {
		return nil // "ccrun volume v1" and the like are labels in formats
	}
	at := place{flags: app.Flags, commands: app.Commands, args: "COMMAND"}
	for i := 0; i < len(words); i++ {
		w := strings.TrimRight(strings.TrimPrefix(words[i], "["), "]") // [--optional VALUE]
		switch {
		case w == "--" || slices.Contains(raw, at.name) && at.seen > 0:
			return nil
		case strings.HasPrefix(w, "-") && len(w) > 1:
			valued, err := at.flag(w)
			if err != nil {
				return err
			}
			if valued {
				i++
			}
		default:
			if err := at.word(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// place is how far a command line has been read.
type place struct {
	name     string
	flags    []cli.Flag
	commands []*cli.Command
	args     string // ArgsUsage
	seen     int    // arguments
}

// flag says whether the word after w is its value.
func (p *place) flag(w string) (bool, error) {
	name, _, given := strings.Cut(strings.TrimLeft(w, "-"), "=")
	name, _, optional := strings.Cut(name, "[") // --replace[=DATE], less its ]
	if slices.Contains([]string{"help", "h", "version", "v"}, name) && !p.has(name) {
		return false, nil
	}
	for _, f := range p.flags {
		if slices.Contains(f.Names(), name) {
			v, ok := f.(cli.DocGenerationFlag)
			return ok && v.TakesValue() && !given && !optional && !isBool(f), nil
		}
	}
	return false, fmt.Errorf("%q has no flag -%s", p.name, name)
}

func (p *place) has(name string) bool {
	return slices.ContainsFunc(p.flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

// isBool tells of flags with a value of their own, such as --replace[=DATE].
func isBool(f cli.Flag) bool {
	g, ok := f.(*cli.GenericFlag)
	if !ok {
		return false
	}
	b, ok := g.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// word takes a command, of a|b each, or an argument.
func (p *place) word(w string) error {
	if len(p.commands) == 0 {
		p.seen++
		if p.args == "" && !strings.HasPrefix(w, "...") && !strings.HasPrefix(w, "…") {
			return fmt.Errorf("%q takes no argument, not %q", p.name, w)
		}
		return nil
	}
	if w == "…" || w == "..." || w == "help" {
		return nil
	}
	var next *cli.Command
	for one := range strings.SplitSeq(w, "|") {
		i := slices.IndexFunc(p.commands, func(c *cli.Command) bool { return c.HasName(one) })
		if i < 0 {
			return fmt.Errorf("%q has no command %q", p.name, one)
		}
		next = p.commands[i]
	}
	p.name, p.commands, p.args = next.Name, next.Subcommands, next.ArgsUsage
	p.flags = slices.Concat(p.flags, next.Flags)
	return nil
}
