// Package face is what all our programs show of themselves on a command line:
// usage errors and their hints, exit statuses, --format, the log, what they
// print. A program describes itself once, as a Program, and has Prepare give
// its commands this face; what a command needs of it at work are functions.
package face

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/hint"
)

// Program is one of our programs, as users see it.
type Program struct {
	// Name is what it is called by, and stands before every error.
	Name string
	// Notice is what a simulation must say in every help text, error and log
	// line. Empty for the real thing.
	Notice string
	// Level is the log's, without --log-level.
	Level slog.Level
	// Raw are commands whose arguments are somebody else's command line: what
	// follows the first of them is no flag of ours.
	Raw []string
	// Elsewhere are words that people type for commands, which ours are not, and
	// what to type instead.
	Elsewhere map[string]string
	Completion
	// Started, if not nil, is told the log's level before a command acts.
	Started func(slog.Level)
}

// Main runs app on the command line argv until it ends or is asked to by a
// signal, and returns the exit status.
func (p Program) Main(app *cli.App, argv []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	wrapHelp()
	return p.Run(ctx, app, argv)
}

// Run is Main until ctx ends.
func (p Program) Run(ctx context.Context, app *cli.App, argv []string) int {
	if len(argv) > 1 && argv[1] == completeCommand {
		p.complete(ctx, app, argv[2:])
		return 0
	}
	err := app.RunContext(ctx, Intersperse(app, argv, p.Raw...))
	return p.Report(app.ErrWriter, err)
}

// Report prints err as "NAME: what failed" and "NAME: hint: next step", and
// returns the exit status that it deserves.
func (p Program) Report(w io.Writer, err error) int {
	if err != nil && !isSilent(err) {
		fmt.Fprintf(w, "%s: %v\n", p.label(), err)
		if next := hint.Of(err); next != "" {
			fmt.Fprintf(w, "%s: hint: %s\n", p.label(), next)
		}
	}
	return Status(err)
}

// label is who speaks.
func (p Program) label() string {
	if p.Notice == "" {
		return p.Name
	}
	return p.Name + " (" + p.Notice + ")"
}
