package face

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Intersperse moves flags in front of a command's arguments, because cli
// stops at the first argument and users of Podman write them in any order.
// What follows "--", or the first argument of a command named in raw, stays
// where it is.
func Intersperse(app *cli.App, argv []string, raw ...string) []string {
	if len(argv) == 0 {
		return argv
	}
	head, rest := []string{argv[0]}, argv[1:]
	flags, commands, name := app.Flags, app.Commands, ""
	for {
		taken, after := takeFlags(flags, rest)
		head, rest = append(head, taken...), after
		if len(rest) == 0 {
			return head
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(rest[0]) })
		if i < 0 {
			break
		}
		name = commands[i].Name
		head, rest = append(head, rest[0]), rest[1:]
		flags, commands = commands[i].Flags, commands[i].Subcommands
	}
	// Of a command that there is not, nobody knows the flags.
	if name == "" || len(commands) > 0 || slices.Contains(raw, name) {
		return append(head, rest...)
	}
	var positional []string
	for len(rest) > 0 && rest[0] != "--" {
		positional = append(positional, rest[0])
		taken, after := takeFlags(flags, rest[1:])
		head, rest = append(head, taken...), after
	}
	return slices.Concat(head, positional, rest)
}

// takeFlags splits off the flags at the start of argv, with their values.
func takeFlags(flags []cli.Flag, argv []string) (taken, rest []string) {
	i := 0
	for i < len(argv) && len(argv[i]) > 1 && argv[i][0] == '-' && argv[i] != "--" {
		valued := !strings.Contains(argv[i], "=") && takesValue(flags, strings.TrimLeft(argv[i], "-"))
		i++
		if valued && i < len(argv) {
			i++
		}
	}
	return argv[:i], argv[i:]
}

func takesValue(flags []cli.Flag, name string) bool {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			v, ok := f.(cli.DocGenerationFlag)
			return ok && v.TakesValue()
		}
	}
	return false
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
