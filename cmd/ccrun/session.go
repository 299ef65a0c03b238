package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
)

func sessionCommand() *cli.Command {
	list := &cli.Command{
		Name: "ls", Aliases: []string{"list"}, Usage: "list sessions, the latest first; with -q, their numbers alone", ArgsUsage: "[WORKLOAD]",
		Description: "Each time a guest asks for its key is a session. `ccrun explain SESSION` shows its rules.\n\n" +
			"Example:\n   ccrun session ls shop\n   ccrun session ls --denied --limit 500",
		Flags: append(serverFlags(), face.ListFormatFlag(),
			&cli.UintFlag{Name: "limit", Value: 20, Usage: "look at the latest `N` sessions at most"},
			&cli.BoolFlag{Name: "denied", Usage: "of these, only what was not granted"}),
		Action: listSessions,
	}
	return &cli.Command{
		Name: "session", Usage: "list what guests asked for, and what became of it",
		Description: "Example:\n   ccrun session ls shop",
		Subcommands: []*cli.Command{list},
	}
}

func listSessions(c *cli.Context) error {
	if err := face.Args(c, 0, 1, "[WORKLOAD]"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	found, err := latestSessions(c, client)
	if err != nil {
		return fmt.Errorf("listing sessions: %w", err)
	}
	return face.List(c, found, func(s kbs.SessionSummary) string { return s.Session }, printSessions)
}

// latestSessions reads pages until --limit sessions were looked at.
func latestSessions(c *cli.Context, client *kbs.AdminClient) ([]kbs.SessionSummary, error) {
	found := []kbs.SessionSummary{} // [] in JSON, not null
	for left, before := int(c.Uint("limit")), ""; left > 0; {
		page, err := client.Sessions(c.Context, c.Args().First(), before, left)
		if err != nil {
			return nil, err
		}
		for _, s := range page.Sessions {
			if !s.Granted || !c.Bool("denied") {
				found = append(found, s)
			}
		}
		left -= len(page.Sessions)
		if page.Next == "" || page.Next == before || len(page.Sessions) == 0 {
			break
		}
		before = page.Next
	}
	return found, nil
}

func printSessions(w io.Writer, sessions []kbs.SessionSummary) error {
	t := face.Table(w)
	fmt.Fprintln(t, "SESSION\tWORKLOAD\tTEE\tAT\tOUTCOME\tRELEASES\tFROM")
	for _, s := range sessions {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", face.Printable(s.Session), face.Printable(cmp.Or(s.WorkloadID, "-")), face.Printable(string(s.TEE)),
			s.At.UTC().Format(time.RFC3339), outcomeOf(s), s.Releases, face.Printable(cmp.Or(s.Peer, "-")))
	}
	return t.Flush()
}

func outcomeOf(s kbs.SessionSummary) string {
	switch {
	case s.Granted:
		return "granted"
	case s.Result == kbs.Undecided:
		return "not decided: " + face.Printable(s.Failed)
	}
	return "denied: " + face.Printable(s.Failed)
}
