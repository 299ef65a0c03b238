package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/urfave/cli/v2"
)

// notice is in every line that ccrun-sim logs and in every help text.
const notice = sample.Notice

// Exit codes of every command but vmm.
const (
	exitFailure = 1
	exitUsage   = 2
)

// exitError carries the exit code that err deserves.
type exitError struct {
	code int
	err  error
	hint string
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }
func (e *exitError) Hint() string  { return e.hint }
func (e *exitError) ExitCode() int { return e.code }

func usage(format string, a ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, a...)}
}

// silentExit ends with the workload's status.
type silentExit int

func (s silentExit) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// hintOf is the next step that err knows, or "".
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// report prints err and returns the exit code.
func report(err error) int {
	if err == nil {
		return 0
	}
	var silent silentExit
	if errors.As(err, &silent) {
		return int(silent)
	}
	printError(os.Stderr, "ccrun-sim", err)
	var denied *refusal
	if errors.As(err, &denied) {
		return exitDenied
	}
	var e interface{ ExitCode() int }
	if errors.As(err, &e) {
		return e.ExitCode()
	}
	return exitFailure
}

func printError(w io.Writer, name string, err error) {
	fmt.Fprintf(w, "%s (%s): %v\n", name, notice, err)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "%s (%s): hint: %s\n", name, notice, hint)
	}
}

// newLogger logs to w, every line with the notice.
func newLogger(w io.Writer, name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, nil)).With("program", name, "notice", notice)
}

func usageError(c *cli.Context, err error, _ bool) error {
	name := c.App.Name
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	return &exitError{code: exitUsage, err: err, hint: "see `" + name + " --help`"}
}

func noCommand(c *cli.Context) error {
	if c.NArg() == 0 {
		return cli.ShowSubcommandHelp(c)
	}
	return usageError(c, fmt.Errorf("unknown command %q", c.Args().First()), true)
}

// noArgs refuses arguments where none are expected.
func noArgs(c *cli.Context) error {
	if c.NArg() > 0 {
		return usageError(c, fmt.Errorf("argument %q not expected", c.Args().First()), true)
	}
	return nil
}

func rootFlag() cli.Flag {
	return &cli.StringFlag{Name: "sample-root", Value: sample.DefaultRoot, EnvVars: []string{"CCRUN_SIM_ROOT"},
		Usage: "`DIR` of the simulated platform: its keys and certificates"}
}

// now is the clock of commands; everything below main is handed the time.
func now() time.Time { return time.Now() }
