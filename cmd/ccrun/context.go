package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/contexts"
	"github.com/ccrun/ccrun/cmd/face"
)

func contextCommand() *cli.Command {
	return &cli.Command{
		Name:        "context",
		Usage:       "list, choose and forget what `ccrun login` remembered",
		Description: "Example:\n   ccrun context use keys.example.com",
		Subcommands: []*cli.Command{
			{Name: "ls", Aliases: []string{"list"}, Usage: "list contexts, the one in use marked; with -q, their names alone", Flags: []cli.Flag{face.ListFormatFlag()},
				Description: "Example:\n   ccrun context ls", Action: listContexts},
			{Name: "use", Usage: "use a context from now on", ArgsUsage: "CONTEXT", Description: "Example:\n   ccrun context use keys.example.com",
				Action: eachContext(contexts.Store.Use, 1)},
			{Name: "rm", Usage: "forget contexts and their tokens, which stay good at the server", ArgsUsage: "CONTEXT...",
				Description: "Example:\n   ccrun context rm keys.example.com", Action: eachContext(contexts.Store.Remove, -1)},
		},
	}
}

func listContexts(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	store, err := contexts.User()
	if err != nil {
		return err
	}
	list, err := store.List()
	if err != nil {
		return err
	}
	return face.List(c, list, func(x contexts.Context) string { return x.Name }, func(w io.Writer, _ []contexts.Context) error {
		t := face.Table(w)
		fmt.Fprintln(t, "USED\tNAME\tSERVER\tTRUSTED BY")
		for _, x := range list {
			used := ""
			if x.Current {
				used = "*"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", used, x.Name, face.Printable(x.Server), cmp.Or(x.CAFile, "the system's authorities"))
		}
		return t.Flush()
	})
}

func eachContext(act func(contexts.Store, string) error, most int) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := face.Args(c, 1, most, "CONTEXT"); err != nil {
			return err
		}
		store, err := contexts.User()
		if err != nil {
			return err
		}
		for _, name := range c.Args().Slice() {
			if err := act(store, name); err != nil {
				return err
			}
		}
		return nil
	}
}

// contextNames are for completion.
func contextNames(context.Context) []string {
	store, err := contexts.User()
	if err != nil {
		return nil
	}
	list, err := store.List()
	if err != nil {
		return nil
	}
	var names []string
	for _, x := range list {
		names = append(names, x.Name)
	}
	return names
}
