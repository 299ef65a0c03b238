package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name: "audit", Usage: "print the server's audit log, the oldest entry first",
		Description: "A tenant's token shows what concerns the tenant. That nothing was altered, `attest-server audit verify`\n" +
			"checks on the server, and witnesses and `ccrun monitor` elsewhere.\n\n" +
			"Example:\n   ccrun audit --since 24h\n   ccrun audit --format json",
		Flags: append(serverFlags(), face.ListFormatFlag(),
			&cli.DurationFlag{Name: "since", Usage: "entries of the last `DURATION` alone"}),
		Action: printAudit,
	}
}

func printAudit(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	var from time.Time
	if c.IsSet("since") {
		from = time.Now().Add(-c.Duration("since"))
	}
	entries, err := auditSince(c, client, from)
	if err != nil {
		return fmt.Errorf("reading the audit log: %w", err)
	}
	return face.Rows(c, entries, printEntries)
}

func auditSince(c *cli.Context, client *kbs.AdminClient, from time.Time) ([]kbs.AuditEntry, error) {
	found := []kbs.AuditEntry{} // [] in JSON, not null
	for page := (*kbs.AuditPage)(nil); ; {
		next, err := client.NextAudit(c.Context, page)
		if errors.Is(err, kbs.ErrLastPage) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if next.Archived != nil && from.Before(*next.Archived) {
			fmt.Fprintf(c.App.ErrWriter, "ccrun: entries that come before these were archived %s, and are not printed: ask the server's operator\n", next.Archived.Format(time.RFC3339))
		}
		for _, e := range next.Entries {
			if !e.At.Before(from) {
				found = append(found, e)
			}
		}
		page = next
	}
}

func printEntries(w io.Writer, entries []kbs.AuditEntry) error {
	t := face.Table(w)
	fmt.Fprintln(t, "AT\tACTOR\tACTION\tOBJECT\tDETAIL")
	for _, e := range entries {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", e.At.UTC().Format(time.RFC3339), face.Printable(e.Actor), face.Printable(e.Action), face.Printable(e.Object), face.Printable(e.Detail))
	}
	return t.Flush()
}
