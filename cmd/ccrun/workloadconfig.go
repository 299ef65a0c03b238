package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

func configCommand() *cli.Command {
	set := &cli.Command{
		Name: "set", Usage: "set variables and arguments of a workload's process", ArgsUsage: "ID",
		Description: `What is not named stays as it is. Others on this machine can read a command's
arguments: give secrets with --env-file, or with --env NAME, which takes the
value from this command's environment. The guest takes what its image was built
to take, with ccrun build --env-allow and --args-allow, at its next start.

Examples:
   ccrun workload config set shop --env LOG_LEVEL=debug --env-file shop.env
   ccrun workload config set shop --args serve --args=--port=8080`,
		Flags: append(serverFlags(), face.FormatFlag(),
			&cli.GenericFlag{Name: "env", Value: &stringList{}, Usage: "variable `NAME=VALUE`, or NAME for the value that it has here; may be repeated"},
			&cli.GenericFlag{Name: "env-file", Value: &stringList{}, Usage: "`FILE` of lines NAME=VALUE or NAME, and of comments that begin with #; - for standard input; may be repeated"},
			&cli.GenericFlag{Name: "args", Value: &stringList{}, Usage: "argument `ARG` in the place of the image's Cmd; once for each"},
			&cli.BoolFlag{Name: "no-args", Usage: "no arguments at all in the place of the image's Cmd"},
			&cli.BoolFlag{Name: "replace", Usage: "forget what was set before"}),
		Action: setConfig,
	}
	show := &cli.Command{
		Name: "show", Usage: "show what is set, by name; never a value", ArgsUsage: "ID",
		Description: "Example:\n   ccrun workload config show shop --format json",
		Flags:       append(serverFlags(), face.FormatFlag()), Action: showConfig,
	}
	remove := &cli.Command{
		Name: "rm", Usage: "forget variables, or all that is set and was set before", ArgsUsage: "ID",
		Description: "Examples:\n   ccrun workload config rm shop --env LOG_LEVEL\n   ccrun workload config rm shop",
		Flags: append(serverFlags(),
			&cli.GenericFlag{Name: "env", Value: &stringList{}, Usage: "variable `NAME` alone; may be repeated"},
			&cli.BoolFlag{Name: "args", Usage: "the arguments alone: back to the image's Cmd"}),
		Action: removeConfig,
	}
	return &cli.Command{
		Name:        "config",
		Usage:       "set what a workload's process gets beside its image",
		Description: "Example:\n   ccrun workload config set shop --env LOG_LEVEL=debug",
		Subcommands: []*cli.Command{set, show, remove},
	}
}

func setConfig(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "ID"); err != nil {
		return err
	}
	id := c.Args().First()
	change, err := configChange(c)
	if err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	if err := checkAllowed(c, client, id, &change.Set); err != nil {
		return err
	}
	a, err := client.SetConfig(c.Context, id, change)
	if err != nil {
		return fmt.Errorf("configuring workload %s: %w", id, err)
	}
	return face.Print(c, a, func(w io.Writer, _ *kbs.ConfigAnswer) error {
		state := "set: the next start takes it"
		if !a.Created {
			state = "was this already"
		}
		_, err := fmt.Fprintf(w, "configuration of %s version %d %s\n", id, a.Version, state)
		return err
	})
}

func configChange(c *cli.Context) (kbs.ConfigChange, error) {
	change := kbs.ConfigChange{Replace: c.Bool("replace"), Set: kbs.WorkloadConfig{Env: map[string]string{}}}
	for _, path := range *c.Generic("env-file").(*stringList) {
		b, err := face.Read(c, path, kbs.MaxConfigBody)
		if err != nil {
			return change, fmt.Errorf("reading --env-file: %w", err)
		}
		if err := addEnvFile(change.Set.Env, path, string(b)); err != nil {
			return change, err
		}
	}
	for _, s := range *c.Generic("env").(*stringList) {
		if err := addVariable(change.Set.Env, s); err != nil {
			return change, face.Usagef("--env: %w", err)
		}
	}
	args := *c.Generic("args").(*stringList)
	switch {
	case c.Bool("no-args") && len(args) > 0:
		return change, face.Usagef("--args and --no-args: one of the two")
	case c.Bool("no-args"):
		change.Set.Args = []string{}
	case len(args) > 0:
		change.Set.Args = args
	case len(change.Set.Env) == 0 && !change.Replace:
		return change, face.Usagef("nothing to set: give --env, --env-file or --args")
	}
	if err := change.Set.Validate(); err != nil {
		return change, face.Usagef("%w", err)
	}
	return change, nil
}

// addEnvFile reads what podman run --env-file does.
func addEnvFile(env map[string]string, path, text string) error {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if trimmed := strings.TrimSpace(line); trimmed == "" || trimmed[0] == '#' {
			continue
		}
		if err := addVariable(env, strings.TrimLeft(line, " \t")); err != nil {
			return face.Usagef("--env-file %s, line %d: %w", path, i+1, err)
		}
	}
	return nil
}

// addVariable says in its errors what is wrong with the name, never the value.
func addVariable(env map[string]string, s string) error {
	name, value, given := strings.Cut(s, "=")
	if !kbs.ValidVariable(name) {
		return fmt.Errorf("variable %.40q: expected a name of letters, digits and '_', no digit first", name)
	}
	if !given {
		var ok bool
		if value, ok = os.LookupEnv(name); !ok {
			return fmt.Errorf("variable %s has no value here, expected NAME=VALUE", name)
		}
	}
	env[name] = value
	return nil
}

// checkAllowed refuses what the guest would, if the server knows what the
// workload boots. The guest decides.
func checkAllowed(c *cli.Context, client *kbs.AdminClient, id string, set *kbs.WorkloadConfig) error {
	b, err := client.Bootable(c.Context, id)
	if err != nil {
		return fmt.Errorf("configuring workload %s: %w", id, err)
	}
	if b.Boot == nil {
		return nil
	}
	identity, err := krun.DecodeIdentity(b.Boot.Identity)
	if err != nil {
		program.Log(c).Warn("the image's policy is not known here, only its guest can say whether it takes this: " + err.Error())
		return nil
	}
	if err := identity.Policy.CheckConfig(set); err != nil {
		return hint.With(fmt.Errorf("configuring workload %s: %w", id, err), "build the image with it: what may be set is measured")
	}
	return nil
}

func showConfig(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "ID"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	m, err := client.ConfigMeta(c.Context, c.Args().First())
	if err != nil {
		return fmt.Errorf("reading configuration of workload %s: %w", c.Args().First(), err)
	}
	return face.Print(c, m, func(w io.Writer, _ *kbs.ConfigMeta) error {
		t := face.Table(w)
		fmt.Fprintln(t, "VERSION\tSET\tBY\tRELEASES\tLAST RELEASE\tARGUMENTS\tVARIABLES")
		for _, v := range m.Versions {
			fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\t%s\n", v.Version, face.Time(&v.CreatedAt, ""), face.Printable(v.CreatedBy),
				v.Releases, face.Time(v.LastRelease, "never"), argumentsOf(v), face.Printable(strings.Join(v.Env, " ")))
		}
		return t.Flush()
	})
}

func argumentsOf(v kbs.ConfigVersion) string {
	if v.Args == nil {
		return "the image's"
	}
	return fmt.Sprint(*v.Args)
}

func removeConfig(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "ID"); err != nil {
		return err
	}
	id, names := c.Args().First(), *c.Generic("env").(*stringList)
	client, err := admin(c)
	if err != nil {
		return err
	}
	if len(names) == 0 && !c.Bool("args") {
		err = client.RemoveConfig(c.Context, id)
	} else {
		_, err = client.SetConfig(c.Context, id, kbs.ConfigChange{Unset: names, UnsetArgs: c.Bool("args")})
	}
	if err != nil {
		return fmt.Errorf("removing configuration of workload %s: %w", id, err)
	}
	_, err = fmt.Fprintln(c.App.Writer, id)
	return err
}
