package face

import (
	"errors"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/hint"
)

// Prepare gives app and its commands, at any depth, this face.
func (p Program) Prepare(app *cli.App) {
	app.Name, app.Version, app.Suggest = p.Name, Version(), true
	app.Commands = append(app.Commands, completionCommand(p.Name), versionCommand(p.Name), manCommand(p.Name))
	app.ExitErrHandler = func(*cli.Context, error) {} // main alone exits
	app.OnUsageError = UsageError
	app.Flags = append(app.Flags, p.logFlags()...)
	app.Action = p.acting(p.noCommand)
	p.prepare(app.Commands)
}

func (p Program) prepare(commands []*cli.Command) {
	for _, c := range commands {
		if !strings.Contains(c.Usage, p.Notice) {
			c.Usage += " (" + p.Notice + ")"
		}
		if c.OnUsageError == nil {
			c.OnUsageError = UsageError
		}
		c.Flags = slices.Concat(c.Flags, p.logFlags())
		if c.Action == nil {
			c.Action = p.noCommand
		}
		c.Action = p.acting(needing(takeRequired(c.Flags), c.Action))
		p.prepare(c.Subcommands)
	}
}

// acting is act, after a look at the flags that every command has.
func (p Program) acting(act cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		level, err := p.level(c)
		if err == nil {
			_, err = parseFormat(c)
		}
		if err == nil {
			if p.Started != nil {
				p.Started(level)
			}
			err = act(c)
		}
		return withPath(withHelp(c, err))
	}
}

// withPath helps whoever named a file that is not there, unless err knows better.
func withPath(err error) error {
	if err == nil || !errors.Is(err, fs.ErrNotExist) || hint.Of(err) != "" {
		return err
	}
	dir, wdErr := os.Getwd()
	if wdErr != nil {
		return err
	}
	return hint.With(err, "check the path; one that does not begin with / is looked for in %s", dir)
}

// noCommand acts where a command is needed and none, or an unknown one, was
// given.
func (p Program) noCommand(c *cli.Context) error {
	if c.NArg() == 0 {
		return cli.ShowSubcommandHelp(c)
	}
	word := c.Args().First()
	err := Usagef("unknown command %q", word)
	commands, path := c.App.Commands, p.Name
	if c.Command != nil && len(c.Command.Subcommands) > 0 {
		commands, path = c.Command.Subcommands, c.Command.HelpName
	}
	if next := p.Elsewhere[word]; next != "" && path == p.Name {
		return hint.With(err, "%s", next)
	}
	var names []string
	for _, x := range commands {
		names = append(names, x.Names()...)
	}
	if near := Nearest(word, names); near != "" {
		return hint.With(err, "did you mean `%s %s`? See `%s --help`", path, near, path)
	}
	return err
}

// takeRequired takes from flags that they are required, of which cli tells with
// its whole help and no status for misuse, and returns their names.
func takeRequired(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		if r, ok := f.(cli.RequiredFlag); !ok || !r.IsRequired() {
			continue
		}
		v := reflect.ValueOf(f)
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		if field := v.FieldByName("Required"); field.IsValid() && field.CanSet() {
			field.SetBool(false)
			names = append(names, f.Names()[0])
		}
	}
	return names
}

// needing is act where all flags of names are set.
func needing(names []string, act cli.ActionFunc) cli.ActionFunc {
	return func(c *cli.Context) error {
		var missing []string
		for _, n := range names {
			if !c.IsSet(n) {
				missing = append(missing, "--"+n)
			}
		}
		if len(missing) > 0 {
			return Usagef("%s: needs %s", strings.TrimPrefix(c.Command.HelpName, c.App.Name+" "), strings.Join(missing, " and "))
		}
		return act(c)
	}
}
