package face

import (
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// logFlags are the flags that every command takes, before and after its name.
func (p Program) logFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-level", DefaultText: strconv.Quote(strings.ToLower(p.Level.String())), Usage: "`LEVEL`: debug, info, warn or error"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print errors only"},
	}
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

// level is the log's.
func (p Program) level(c *cli.Context) (slog.Level, error) {
	if s := LogLevel(c); s != "" {
		return parseLevel(s)
	}
	return p.Level, nil
}

func parseLevel(s string) (l slog.Level, err error) {
	if l.UnmarshalText([]byte(s)) != nil {
		return l, Usagef("--log-level %q: expected debug, info, warn or error", s)
	}
	return l, nil
}

// Log is the log of a command.
func (p Program) Log(c *cli.Context) *slog.Logger {
	level, err := p.level(c)
	if err != nil {
		level = p.Level // not for a command that acts: acting has refused it
	}
	return p.logTo(slog.NewTextHandler(c.App.ErrWriter, logOptions(level)))
}

// NewLog is the log of a command that reads its level and format, text or
// json, elsewhere than from flags, too.
func (p Program) NewLog(w io.Writer, level, format string) (*slog.Logger, error) {
	l, err := parseLevel(level)
	if err != nil {
		return nil, err
	}
	switch o := logOptions(l); format {
	case "text":
		return p.logTo(slog.NewTextHandler(w, o)), nil
	case "json":
		return p.logTo(slog.NewJSONHandler(w, o)), nil
	}
	return nil, Usagef("--log-format %q: expected text or json", format)
}

func (p Program) logTo(h slog.Handler) *slog.Logger {
	if p.Notice == "" {
		return slog.New(h)
	}
	return slog.New(h).With("notice", p.Notice)
}

// logOptions leave the time out under journald, which stamps lines itself.
func logOptions(level slog.Level) *slog.HandlerOptions {
	o := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		o.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return o
}

// Note tells people, not programs, what was done: on standard error, unless
// errors or warnings alone are wanted.
func (p Program) Note(c *cli.Context, format string, a ...any) {
	if l, err := p.level(c); err == nil && l <= slog.LevelInfo {
		fmt.Fprintf(c.App.ErrWriter, p.label()+": "+format+"\n", a...)
	}
}
