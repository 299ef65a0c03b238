package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
)

func workloadCommand() *cli.Command {
	list := &cli.Command{
		Name: "ls", Aliases: []string{"list"}, Usage: "list registered workloads; with -q, their ids alone",
		Description: "Example:\n   ccrun workload ls --format 'table {{.WorkloadID}}\\t{{.Releases}}'",
		Flags:       append(serverFlags(), face.ListFormatFlag()), Action: listWorkloads,
	}
	show := &cli.Command{
		Name: "show", Usage: "show a registration, its history and what its guests may get, never a key or a secret", ArgsUsage: "ID",
		Description: "Example:\n   ccrun workload show shop --format json",
		Flags:       append(serverFlags(), face.FormatFlag()), Action: showWorkload,
	}
	revoke := &cli.Command{
		Name: "revoke", Usage: "refuse the workload's key from now on; the registration stays for the record", ArgsUsage: "ID...",
		Description: "ID means all versions of a workload, ID@N one. A guest that runs already has its\nkey: stop it too.\n\nExamples:\n   ccrun workload revoke shop\n   ccrun workload revoke shop@1",
		Flags:       serverFlags(), Action: revokeWorkloads,
	}
	remove := &cli.Command{
		Name: "rm", Usage: "delete registrations and their disk keys for good (role admin)", ArgsUsage: "ID...",
		Description: "ID means all versions of a workload, ID@N one; without the newest, the one before\ntakes its place. Without another copy of the disk key, the workload's disk can never be opened again.\n\nExample:\n   ccrun workload rm shop",
		Flags:       serverFlags(), Action: removeWorkloads,
	}
	return &cli.Command{
		Name:        "workload",
		Usage:       "list, show, configure, rotate, update, revoke and remove what is registered with the server",
		Description: "Example:\n   ccrun workload ls --server https://kbs.example:8443 --ca ca.pem --token-file token",
		Subcommands: []*cli.Command{list, show, configCommand(), rotateCommand(), updateCommand(), revoke, remove},
	}
}

func listWorkloads(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	list, err := client.List(c.Context)
	if err != nil {
		return fmt.Errorf("listing workloads: %w", err)
	}
	return face.List(c, list, func(x kbs.WorkloadSummary) string { return x.WorkloadID }, func(w io.Writer, _ []kbs.WorkloadSummary) error {
		t := face.Table(w)
		fmt.Fprintln(t, "WORKLOAD\tTEE\tTYPE\tSTATE\tRELEASES\tDENIALS\tLAST RELEASE\tREGISTERED\tIMAGE")
		for _, x := range list {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", x.WorkloadID, x.TEE, typeOf(x.Type), stateOf(x.RevokedAt, x.EndsAt), x.Releases, x.Denials,
				face.Time(x.LastRelease, "never"), face.Time(&x.RegisteredAt, ""), face.Printable(cmp.Or(x.Image, "-")))
		}
		return t.Flush()
	})
}

func showWorkload(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "ID"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	s, err := client.Get(c.Context, c.Args().First())
	if err != nil {
		return fmt.Errorf("reading workload %s: %w", c.Args().First(), err)
	}
	shown, err := whatItMayGet(c.Context, client, s)
	if err != nil {
		return fmt.Errorf("workload %s: %w", c.Args().First(), err)
	}
	return face.Print(c, shown, func(w io.Writer, _ *shownWorkload) error {
		t := face.Table(w)
		r := s.Registration
		fmt.Fprintf(t, "workload\t%s\n", r.WorkloadID)
		fmt.Fprintf(t, "state\t%s\n", stateOf(s.RevokedAt, s.EndsAt))
		for _, v := range s.Versions {
			fmt.Fprintf(t, "version %d\t%s, %s, registered %s, last release %s\n", v.Version, v.Name, stateOf(v.RevokedAt, v.EndsAt),
				face.Time(&v.RegisteredAt, ""), face.Time(v.LastRelease, "never"))
		}
		fmt.Fprintf(t, "tee\t%s\n", r.ReferenceValues.TEE)
		fmt.Fprintf(t, "image\t%s\n", face.Printable(cmp.Or(s.Image, "-")))
		fmt.Fprintf(t, "registered\t%s by %s\n", face.Time(&s.RegisteredAt, ""), s.RegisteredBy)
		fmt.Fprintf(t, "releases\t%d, last %s\n", s.Releases, face.Time(s.LastRelease, "never"))
		fmt.Fprintf(t, "limits\t%s\n", limitsOf(s))
		fmt.Fprintf(t, "denials\t%d\n", s.Denials)
		if s.RotatedAt != nil {
			fmt.Fprintf(t, "disk key\trotated %s\n", face.Time(s.RotatedAt, ""))
		}
		if s.Rotation != "" {
			fmt.Fprintf(t, "rotation\t%s under way since %s: two disk keys are valid\n", face.Printable(s.Rotation), face.Time(s.StagedAt, ""))
		}
		fmt.Fprintf(t, "type\t%s\n", identityOf(r.Type))
		if r.Type == kbs.TypeNative {
			fmt.Fprintf(t, "identity digest\t%s\n", r.IdentityDigest)
			fmt.Fprintf(t, "footer digest\t%s\n", r.FooterDigest)
		}
		for _, m := range r.ReferenceValues.Measurements {
			until := ""
			if m.NotAfter != nil {
				until = ", until " + face.Time(m.NotAfter, "")
			}
			fmt.Fprintf(t, "measurement\t%s  %s, %d CPUs, %d MiB, firmware %.12s%s\n", m.LaunchDigest, face.Printable(m.Profile), m.CPUs, m.MemoryMiB, face.Printable(m.Firmware), until)
		}
		shown.print(t)
		return t.Flush()
	})
}

func typeOf(t kbs.RegistrationType) string {
	if t == kbs.TypeNative {
		return "native"
	}
	return face.Printable(string(t))
}

// identityOf says what tells the workload's guests from others.
func identityOf(t kbs.RegistrationType) string {
	switch t {
	case kbs.TypeNative:
		return "native: launch digest, identity and footer"
	case kbs.TypeLegacy:
		return "legacy: weak, every guest of the same stock firmware, CPUs and memory gets the key"
	}
	return typeOf(t) + ": launch digest alone"
}

func revokeWorkloads(c *cli.Context) error {
	return eachWorkload(c, "revoking", func(client *kbs.AdminClient, id string) error {
		_, err := client.Revoke(c.Context, id)
		return err
	})
}

func removeWorkloads(c *cli.Context) error {
	return eachWorkload(c, "removing", func(client *kbs.AdminClient, id string) error {
		return client.Remove(c.Context, id)
	})
}

// eachWorkload does act to every ID given and prints it when done.
func eachWorkload(c *cli.Context, doing string, act func(*kbs.AdminClient, string) error) error {
	if err := face.Args(c, 1, -1, "ID..."); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	for _, id := range c.Args().Slice() {
		if err := act(client, id); err != nil {
			return fmt.Errorf("%s workload %s: %w", doing, id, err)
		}
		if _, err := fmt.Fprintln(c.App.Writer, id); err != nil {
			return err
		}
	}
	return nil
}

// limitsOf says how often the key may still be released.
func limitsOf(s *kbs.WorkloadStatus) string {
	l := s.Registration.Release
	if l == nil {
		return fmt.Sprintf("none; %d sessions got the key", s.Released)
	}
	var parts []string
	if l.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d sessions of %d in all", s.Released, l.Total))
	}
	if l.PerDay > 0 {
		parts = append(parts, fmt.Sprintf("%d a day", l.PerDay))
	}
	if l.NotAfter != nil {
		parts = append(parts, "until "+face.Time(l.NotAfter, ""))
	}
	return strings.Join(parts, ", ")
}

func stateOf(revoked, ends *time.Time) string {
	switch {
	case revoked != nil:
		return "revoked"
	case ends != nil && !time.Now().Before(*ends):
		return "ended"
	case ends != nil:
		return "until " + face.Time(ends, "")
	}
	return "active"
}
