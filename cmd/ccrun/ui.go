package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/urfave/cli/v2"
)

// Exit codes of every ccrun command but run (docs/contract).
const (
	exitFailure    = 1
	exitUsage      = 2
	exitDenied     = 3
	exitNotCapable = 4
)

// exitError carries the exit code that err deserves, and what to do next.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }
func (e *exitError) Hint() string  { return e.hint }

// fail wraps err with an exit code and a hint (may be empty).
func fail(code int, err error, hint string) error {
	return &exitError{code: code, err: err, hint: hint}
}

// usage is an error of the command line.
func usage(format string, a ...any) error {
	return fail(exitUsage, fmt.Errorf(format, a...), "")
}

// hinter is implemented by errors that know the next step. Any package may
// return one; report prints it on a line of its own.
type hinter interface{ Hint() string }

// report prints err in the one form that every command uses and returns the
// exit code: "ccrun: what failed", then "ccrun: hint: next step".
func report(err error) int {
	if err == nil {
		return 0
	}
	var silent silentExit
	if errors.As(err, &silent) {
		return int(silent)
	}
	fmt.Fprintf(os.Stderr, "ccrun: %v\n", err)
	if h := hintOf(err); h != "" {
		fmt.Fprintf(os.Stderr, "ccrun: hint: %s\n", h)
	}
	var e *exitError
	if errors.As(err, &e) {
		return e.code
	}
	return exitFailure
}

// hintOf is the first hint in err's tree.
func hintOf(err error) string {
	if h, ok := err.(hinter); ok && h.Hint() != "" {
		return h.Hint()
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return hintOf(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if h := hintOf(one); h != "" {
				return h
			}
		}
	}
	return ""
}

// silentExit ends ccrun with a status that is not ours, as run does with the
// workload's.
type silentExit int

func (s silentExit) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func usageError(c *cli.Context, err error, _ bool) error {
	return fail(exitUsage, err, "see `"+c.Command.HelpName+" --help`")
}

// noCommand runs where a subcommand is needed and none, or an unknown one,
// was given.
func noCommand(c *cli.Context) error {
	if c.NArg() == 0 {
		return cli.ShowSubcommandHelp(c)
	}
	return usageError(c, fmt.Errorf("unknown command %q", c.Args().First()), true)
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-level", Value: "warn", Usage: "`LEVEL`: debug, info, warn or error"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
	}
}

func setUpLogging(c *cli.Context) error {
	var level slog.Level
	for _, ctx := range c.Lineage() {
		if ctx.IsSet("log-level") {
			if err := level.UnmarshalText([]byte(ctx.String("log-level"))); err != nil {
				return usage("--log-level %q: expected debug, info, warn or error", ctx.String("log-level"))
			}
			break
		}
		level = slog.LevelWarn
	}
	if c.Bool("quiet") {
		level = slog.LevelError
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
	return nil
}

// formatFlag is the --format of every command that prints data.
func formatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "`FORMAT`: json, or a Go template"}
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// args checks the number of a command's arguments, at most max unless -1.
func args(c *cli.Context, min, max int, names string) error {
	if n := c.NArg(); n < min || (max >= 0 && n > max) {
		return fail(exitUsage, fmt.Errorf("%s: %d arguments, expected %s", c.Command.Name, n, names),
			"see `ccrun "+c.Command.Name+" --help`")
	}
	return nil
}
