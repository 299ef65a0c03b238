package command

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"text/template"

	"github.com/urfave/cli/v2"
)

// LogFlags are the flags that every command takes, before and after its name.
func LogFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-level", DefaultText: "info", Usage: "`LEVEL`: debug, info, warn or error"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
	}
}

// Inherit gives every command, at any depth, what cli does not pass on: the
// LogFlags, checked before it runs.
func Inherit(commands []*cli.Command) {
	for _, c := range commands {
		if !slices.ContainsFunc(c.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), "log-level") }) {
			c.Flags = append(c.Flags, LogFlags()...)
		}
		if c.Before == nil {
			c.Before = CheckLogFlags
		}
		Inherit(c.Subcommands)
	}
}

// CheckLogFlags refuses a --log-level that is none.
func CheckLogFlags(c *cli.Context) error {
	_, err := parseLevel(cmp.Or(LogLevel(c), "info"))
	return err
}

// LogLevel is what --quiet and --log-level ask for, wherever among the
// commands they stand, or "".
func LogLevel(c *cli.Context) string {
	level := ""
	for _, ctx := range c.Lineage() {
		if ctx.Bool("quiet") {
			return "error"
		}
		level = cmp.Or(level, ctx.String("log-level"))
	}
	return level
}

func parseLevel(s string) (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s)); err != nil {
		return l, usage("--log-level %q: expected debug, info, warn or error", s)
	}
	return l, nil
}

// note tells people, not programs, what was done: on standard error, with the
// program's name and notice, unless errors or warnings alone are wanted.
func (p Program) note(c *cli.Context, format string, a ...any) {
	if l, err := parseLevel(cmp.Or(LogLevel(c), "info")); err != nil || l > slog.LevelInfo {
		return
	}
	name := p.Name
	if p.Notice != "" {
		name += " (" + p.Notice + ")"
	}
	fmt.Fprintf(c.App.ErrWriter, name+": "+format+"\n", a...)
}

func formatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "`FORMAT`: json, or a Go template"}
}

// show prints v as --format says; without it, as plain does.
func show(c *cli.Context, v any, plain func(io.Writer) error) error {
	w := c.App.Writer
	switch f := c.String("format"); f {
	case "":
		return plain(w)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	default:
		t, err := template.New("format").Parse(f)
		if err != nil {
			return usage("--format: %w", err)
		}
		if err := t.Execute(w, v); err != nil {
			return fmt.Errorf("printing with --format: %w", err)
		}
		_, err = fmt.Fprintln(w)
		return err
	}
}

// checkFormat refuses a --format that is no template, before anything is done.
func checkFormat(c *cli.Context) error {
	if _, err := template.New("format").Parse(c.String("format")); err != nil {
		return usage("--format: %w", err)
	}
	return nil
}
