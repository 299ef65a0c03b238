package face

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

// Completion is what the shells' completion cannot see in flags and commands.
type Completion struct {
	// Values are what a flag takes, by its name, where it takes nothing else.
	Values map[string][]string
	// Names finds what an argument may be, by the word that stands for it in a
	// command's usage: ID, IMAGE. Best effort.
	Names map[string]func(context.Context) []string
}

// completeCommand is what the shells' scripts run: its arguments are a command
// line of the program up to the word at the cursor, and it prints what that
// word may be, one a line.
const completeCommand = "__complete"

// completionPatience bounds what a press of TAB may wait for names.
const completionPatience = 2 * time.Second

// complete prints what may stand in place of the last of words, the word at
// the cursor. What it cannot find out it leaves out: a TAB never fails.
func (k Completion) complete(ctx context.Context, app *cli.App, words []string) {
	if len(words) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	before, cur := words[:len(words)-1], words[len(words)-1]
	w := app.Writer
	if w == nil { // cli's default comes with a run
		w = os.Stdout
	}
	for _, s := range k.candidates(ctx, app, before, cur) {
		if strings.HasPrefix(s, cur) {
			fmt.Fprintln(w, Printable(s))
		}
	}
}

func (k Completion) candidates(ctx context.Context, app *cli.App, before []string, cur string) []string {
	at := place{flags: app.Flags, commands: app.Commands}
	at.walk(before)
	name, _, assigned := strings.Cut(cur, "=")
	switch {
	case at.valued != "":
		return k.Values[at.valued]
	case assigned && strings.HasPrefix(cur, "--"):
		var all []string
		for _, v := range k.Values[strings.TrimPrefix(name, "--")] {
			all = append(all, name+"="+v)
		}
		return all
	case strings.HasPrefix(cur, "-"):
		return flagNames(at.flags)
	case len(at.commands) > 0:
		return commandNames(at.commands)
	}
	if names := k.Names[at.argument()]; names != nil {
		return names(ctx)
	}
	return nil
}

// place is where on a command line the cursor is.
type place struct {
	flags    []cli.Flag
	commands []*cli.Command // of which one may follow
	command  *cli.Command
	args     int    // that stand before it
	valued   string // the flag whose value it is
}

func (at *place) walk(words []string) {
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case len(w) > 1 && w[0] == '-':
			if name := strings.TrimLeft(w, "-"); !strings.Contains(w, "=") && takesValue(at.flags, name) {
				if i++; i == len(words) {
					at.valued = name
				}
			}
		case at.enter(w):
		default:
			at.commands = nil
			at.args++
		}
	}
}

func (at *place) enter(word string) bool {
	i := slices.IndexFunc(at.commands, func(c *cli.Command) bool { return c.HasName(word) })
	if i < 0 {
		return false
	}
	at.command = at.commands[i]
	at.flags, at.commands = at.command.Flags, at.command.Subcommands
	return true
}

// argument is the word in the command's usage that stands for the argument at
// the cursor: ID, IMAGE.
func (at *place) argument() string {
	if at.command == nil {
		return ""
	}
	words := strings.Fields(at.command.ArgsUsage)
	if len(words) == 0 {
		return ""
	}
	last := words[len(words)-1]
	if at.args < len(words) {
		last = words[at.args]
	} else if !strings.HasSuffix(last, "...") {
		return ""
	}
	return strings.Trim(strings.TrimSuffix(last, "..."), "[]")
}

func flagNames(flags []cli.Flag) []string {
	var all []string
	for _, f := range flags {
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		all = append(all, "--"+f.Names()[0])
	}
	return append(all, "--help")
}

func commandNames(commands []*cli.Command) []string {
	var all []string
	for _, c := range commands {
		if !c.Hidden {
			all = append(all, c.Name)
		}
	}
	return all
}
