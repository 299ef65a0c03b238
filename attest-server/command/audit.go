package command

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/store"
)

func (p Program) auditCommand() *cli.Command {
	return &cli.Command{
		Name:        "audit",
		Usage:       "verify and export the audit log",
		Description: "Every registration, change, grant, release and denial of authentic Evidence is an entry; each\ncovers the one before it.\n\nExample:\n   " + p.Name + " audit verify --expect 1041:9f86d081884c7d65...",
		Subcommands: []*cli.Command{
			{
				Name: "verify", Usage: "check the whole chain and print its head, SEQUENCE:HASH",
				Description: "Keep the head elsewhere and give it to the next --expect: an edited or deleted entry breaks the\n" +
					"chain by itself, a tail cut off does not.\n\nExample:\n   " + p.Name + " audit verify",
				Flags:  []cli.Flag{dataFlag(), &cli.StringFlag{Name: "expect", Usage: "`SEQUENCE:HASH` that must be in the chain"}},
				Action: verifyAudit,
			},
			{
				Name: "export", Usage: "print entries as JSON, one a line",
				Description: "Example:\n   " + p.Name + " audit export --after 1000",
				Flags:       []cli.Flag{dataFlag(), &cli.Int64Flag{Name: "after", Usage: "only entries after `SEQUENCE`"}},
				Action:      exportAudit,
			},
		},
	}
}

func verifyAudit(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	expect := c.String("expect")
	sequence, _, ok := strings.Cut(expect, ":")
	if n, err := strconv.ParseInt(sequence, 10, 64); expect != "" && (!ok || err != nil || n < 0) {
		return usage("--expect %q: expected SEQUENCE:HASH", expect)
	}
	return withStore(c, func(ctx context.Context, s *store.SQLite) error {
		head, found := "0:", expect == "" || expect == "0:"
		err := s.Audit(ctx, 0, func(e store.AuditEntry) error {
			head = fmt.Sprintf("%d:%s", e.Sequence, e.Hash)
			found = found || strings.EqualFold(head, expect)
			return nil
		})
		if err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("audit chain is whole but does not hold %s; it ends at %s: %w", expect, head, store.ErrTampered)
		}
		_, err = fmt.Fprintln(c.App.Writer, head)
		return err
	})
}

func exportAudit(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	if c.Int64("after") < 0 {
		return usage("--after %d: expected a sequence number", c.Int64("after"))
	}
	return withStore(c, func(ctx context.Context, s *store.SQLite) error {
		w := bufio.NewWriter(c.App.Writer)
		e := json.NewEncoder(w)
		if err := s.Audit(ctx, c.Int64("after"), func(x store.AuditEntry) error { return e.Encode(x) }); err != nil {
			return err
		}
		return w.Flush()
	})
}
