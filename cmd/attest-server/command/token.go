package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func (p Program) tokenCommand() *cli.Command {
	return &cli.Command{
		Name:        "token",
		Usage:       "create, list and revoke the tokens of owners and operators",
		Description: "Works on DIR itself, also while the server runs. Needs no master key.\n\nExample:\n   " + p.Name + " token create --role publisher --principal ci --expires 720h",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make a token; it is printed once, on standard output",
				Description: "Example:\n   " + p.Name + " token create --role auditor --token-out /root/auditor.token",
				Flags: []cli.Flag{
					configFlag(), dataFlag(),
					&cli.StringFlag{Name: "role", Required: true, Usage: "`ROLE`: admin, publisher (registers, revokes, reads) or auditor (reads)"},
					&cli.StringFlag{Name: "tenant", Usage: "`NAME` of the tenant whose it is (default: the operator's, for everything)"},
					&cli.StringFlag{Name: "principal", Usage: "`NAME` of whose it is: what was registered with one of his tokens, each other can rotate, revoke or remove"},
					&cli.StringFlag{Name: "name", Usage: "`TEXT` to know it by"},
					&cli.DurationFlag{Name: "expires", Usage: "valid for `TIME`, e.g. 720h (default: until revoked)"},
					&cli.StringFlag{Name: "token-out", Usage: "write it to a new `FILE`, mode 0600, instead"},
				},
				Action: p.createToken,
			},
			{
				Name: "ls", Usage: "list tokens, never their secret part",
				Description: "Example:\n   " + p.Name + " token ls --format json",
				Flags:       []cli.Flag{configFlag(), dataFlag(), face.ListFormatFlag()},
				Action:      onStore(0, 0, "", listTokens),
			},
			{
				Name: "revoke", Usage: "end tokens at once", ArgsUsage: "ID...",
				Description: "Example:\n   " + p.Name + " token revoke 0f1e2d3c4b5a",
				Flags:       []cli.Flag{configFlag(), dataFlag()},
				Action:      onStore(1, -1, "ID...", revokeTokens),
			},
		},
	}
}

func (p Program) createToken(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	role := store.Role(c.String("role"))
	if !role.Valid() {
		return face.Usagef("--role %q: expected admin, publisher or auditor", role)
	}
	var expires time.Time
	if d := c.Duration("expires"); d < 0 {
		return face.Usagef("--expires %s: expected a time to come", d)
	} else if d > 0 {
		expires = time.Now().Add(d)
	}
	return withStore(c, func(s *store.DB) error {
		text, t, err := s.CreateTokenFor(c.Context, c.String("principal"), c.String("tenant"), role, c.String("name"), expires, "local")
		if tenant := c.String("tenant"); tenant != "" && errors.Is(err, store.ErrNotFound) {
			return hint.With(err, "make it: `attest-server tenant set %s`", tenant)
		}
		if err != nil {
			return err
		}
		if err := handOut(c, text); err != nil {
			return errors.Join(err, s.RevokeToken(c.Context, t.ID, "local"))
		}
		p.Note(c, "made token %s of role %s", t.ID, t.Role)
		return nil
	})
}

func listTokens(c *cli.Context, s *store.DB) error {
	tokens, err := s.Tokens(c.Context)
	if err != nil {
		return err
	}
	return face.List(c, tokens, func(t store.Token) string { return t.ID }, printTokens)
}

func printTokens(out io.Writer, tokens []store.Token) error {
	w := face.Table(out)
	fmt.Fprintln(w, "ID\tROLE\tTENANT\tPRINCIPAL\tCREATED\tEXPIRES\tREVOKED\tNAME")
	for _, t := range tokens {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", t.ID, t.Role, cmp.Or(t.Tenant, "-"), cmp.Or(t.Principal, "-"), t.CreatedAt.Format(time.RFC3339), face.Time(t.ExpiresAt, "never"), face.Time(t.RevokedAt, "-"), t.Name)
	}
	return w.Flush()
}

func revokeTokens(c *cli.Context, s *store.DB) error {
	for _, id := range c.Args().Slice() {
		if err := s.RevokeToken(c.Context, id, "local"); err != nil {
			return hint.With(err, "`attest-server token ls` lists the tokens, by ID")
		}
	}
	return nil
}
