package face

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Prepare gives app and its commands, at any depth, this face.
func (p Program) Prepare(app *cli.App) {
	app.Name, app.Version, app.Suggest = p.Name, Version(), true
	app.Commands = append(app.Commands, completionCommand(p.Name), versionCommand(p.Name), manCommand(p.Name))
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
