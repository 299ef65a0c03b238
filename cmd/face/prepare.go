package face

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Prepare gives app and its commands, at any depth, this face.
func (p Program) Prepare(app *cli.App) {
	app.Name, app.HideVersion, app.EnableBashCompletion, app.Suggest = p.Name, true, true, true
	app.ExitErrHandler = func(*cli.Context, error) {} // main alone exits
	app.OnUsageError = UsageError
	app.Flags = append(app.Flags, p.logFlags()...)
	app.Action = p.acting(noCommand)
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
			c.Action = noCommand
		}
		c.Action = p.acting(c.Action)
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
		return withHelp(c, err)
	}
}

// noCommand acts where a command is needed and none, or an unknown one, was
// given.
func noCommand(c *cli.Context) error {
	if c.NArg() == 0 {
		return cli.ShowSubcommandHelp(c)
	}
	return Usagef("unknown command %q", c.Args().First())
}

// Args checks the number of a command's arguments: at least least and, unless
// it is -1, at most most. names is what they are.
func Args(c *cli.Context, least, most int, names string) error {
	n := c.NArg()
	if n >= least && (most < 0 || n <= most) {
		return nil
	}
	name := strings.TrimPrefix(c.Command.HelpName, c.App.Name+" ")
	if most == 0 {
		return Usagef("%s: unexpected argument %q", name, c.Args().First())
	}
	return Usagef("%s: %d arguments, expected %s", name, n, names)
}

// NoArgs is Args for commands that take none.
func NoArgs(c *cli.Context) error { return Args(c, 0, 0, "") }
