package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload"
)

func resourceCommand() *cli.Command {
	set := &cli.Command{
		Name: "set", Usage: "give a resource a new value and policy", ArgsUsage: "REPO/TYPE/TAG",
		Description: "The value is read from a file, or from HashiCorp Vault or OpenBao, never from the command line. Setting\n" +
			"the same again changes nothing.\n\n" +
			"--from vault:MOUNT/PATH#FIELD is a text of a key-value engine of version 2, byte for byte. VAULT_ADDR says\n" +
			"where it is (https), VAULT_CACERT whom to trust, VAULT_NAMESPACE the namespace. The token is in the file\n" +
			"VAULT_TOKEN_FILE or ~/.vault-token.\n\n" +
			"Examples:\n   ccrun resource set bank/key/db --from-file db.key --workload bank.fraud --approval insurer\n" +
			"   ccrun resource set bank/key/db --from 'vault:secret/bank/db#key' --workload bank.fraud",
		Flags: append(serverFlags(), face.FormatFlag(),
			&cli.StringFlag{Name: "from", Usage: "`SOURCE` of the value, up to 32 KiB: vault:MOUNT/PATH#FIELD, or file:PATH"},
			&cli.StringFlag{Name: "from-file", Usage: "`FILE` with the value, up to 32 KiB, byte for byte; - for standard input"},
			&cli.StringSliceFlag{Name: "workload", Usage: "`ID` of a workload that may have it; may be repeated"},
			&cli.StringSliceFlag{Name: "tenant", Usage: "`TENANT` all of whose workloads may have it; may be repeated"},
			&cli.StringSliceFlag{Name: "approval", Usage: "`TENANT` that must approve each registration first; may be repeated"}),
		Action: setResource,
	}
	meta := &cli.Command{
		Name: "get-meta", Usage: "show a resource's versions and policies, never its value", ArgsUsage: "REPO/TYPE/TAG",
		Description: "Example:\n   ccrun resource get-meta bank/key/db --format json",
		Flags:       append(serverFlags(), face.FormatFlag()), Action: showResource,
	}
	list := &cli.Command{
		Name: "ls", Aliases: []string{"list"}, Usage: "list resources", Description: "Example:\n   ccrun resource ls",
		Flags: append(serverFlags(), face.ListFormatFlag()), Action: listResources,
	}
	remove := &cli.Command{
		Name: "rm", Usage: "delete resources, every version", ArgsUsage: "REPO/TYPE/TAG...",
		Description: "Example:\n   ccrun resource rm bank/key/db",
		Flags:       serverFlags(), Action: removeResources,
	}
	approve := &cli.Command{
		Name: "approve", Usage: "approve the release of a resource, or of a disk key, to exactly what RECORD registers", ArgsUsage: "REPO/TYPE/TAG|key RECORD",
		Description: "RECORD is the workload's, as `ccrun build --record` writes it, without its disk key. The word key stands\n" +
			"for the workload's disk key. The approval is the token's tenant's, for this registration and no later one.\n\n" +
			"Example:\n   ccrun resource approve bank/key/db fraud.record",
		Flags:  append(serverFlags(), &cli.BoolFlag{Name: "withdraw", Usage: "take the approval back"}),
		Action: approveResource,
	}
	return &cli.Command{
		Name:        "resource",
		Usage:       "keep further secrets for attested workloads",
		Description: "Example:\n   ccrun resource ls --server https://kbs.example:8443 --ca ca.pem --token-file token",
		Subcommands: []*cli.Command{set, meta, list, remove, approve},
	}
}

func resourceArg(s string) (kbs.ResourceID, error) {
	id, err := kbs.ParseResourceID(s)
	if err != nil {
		return id, face.Usagef("%w", err)
	}
	return id, nil
}

func setResource(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "REPO/TYPE/TAG"); err != nil {
		return err
	}
	id, err := resourceArg(c.Args().First())
	if err != nil {
		return err
	}
	value, err := valueOf(c)
	if err != nil {
		return err
	}
	defer value.Wipe()
	client, err := admin(c)
	if err != nil {
		return err
	}
	a, err := client.SetResource(c.Context, id, kbs.ResourceRequest{Value: value.Reveal(), Policy: kbs.ResourcePolicy{
		Workloads: c.StringSlice("workload"), Tenants: c.StringSlice("tenant"), Approvals: c.StringSlice("approval"),
	}})
	if err != nil {
		return fmt.Errorf("setting resource %s: %w", id, err)
	}
	return face.Print(c, a, func(w io.Writer, _ *kbs.ResourceAnswer) error {
		state := "set"
		if !a.Created {
			state = "was this already"
		}
		_, err := fmt.Fprintf(w, "resource %s version %d %s\n", id, a.Version, state)
		return err
	})
}

func showResource(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "REPO/TYPE/TAG"); err != nil {
		return err
	}
	id, err := resourceArg(c.Args().First())
	if err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	m, err := client.ResourceMeta(c.Context, id)
	if err != nil {
		return fmt.Errorf("reading resource %s: %w", id, err)
	}
	return face.Print(c, m, func(w io.Writer, _ *kbs.ResourceMeta) error {
		t := face.Table(w)
		fmt.Fprintln(t, "VERSION\tBYTES\tSET\tBY\tRELEASES\tLAST RELEASE\tWORKLOADS\tTENANTS\tAPPROVALS")
		for _, v := range m.Versions {
			fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%d\t%s\t%v\t%v\t%v\n", v.Version, v.SizeBytes, face.Time(&v.CreatedAt, ""), face.Printable(v.CreatedBy),
				v.Releases, face.Time(v.LastRelease, "never"), v.Policy.Workloads, v.Policy.Tenants, v.Policy.Approvals)
		}
		return t.Flush()
	})
}

func listResources(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	list, err := client.Resources(c.Context)
	if err != nil {
		return fmt.Errorf("listing resources: %w", err)
	}
	itself := func(name string) string { return name }
	return face.List(c, list, itself, func(io.Writer, []string) error { return face.Names(c, list, itself) })
}

func removeResources(c *cli.Context) error {
	if err := face.Args(c, 1, -1, "REPO/TYPE/TAG..."); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	for _, s := range c.Args().Slice() {
		id, err := resourceArg(s)
		if err != nil {
			return err
		}
		if err := client.RemoveResource(c.Context, id); err != nil {
			return fmt.Errorf("removing resource %s: %w", id, err)
		}
		if _, err := fmt.Fprintln(c.App.Writer, id); err != nil {
			return err
		}
	}
	return nil
}

// approveResource takes the registration from its record, so that an owner
// approves what he has seen and not what the server shows him.
func approveResource(c *cli.Context) error {
	if err := face.Args(c, 2, 2, "REPO/TYPE/TAG|key RECORD"); err != nil {
		return err
	}
	r, err := workload.ReadRecord(c.Args().Get(1))
	if err != nil {
		return err
	}
	clear(r.DiskKey)
	canonical, err := kbs.Canonical(r.Registration)
	if err != nil {
		return err
	}
	a := kbs.Approval{Name: kbs.ReleaseName(r.Registration.WorkloadID), WorkloadID: r.Registration.WorkloadID, RegistrationDigest: kbs.Sum384(canonical)}
	if s := c.Args().First(); s != "key" {
		id, err := resourceArg(s)
		if err != nil {
			return err
		}
		a.Name = kbs.ResourceName(id)
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	change := client.Approve
	if c.Bool("withdraw") {
		change = client.Withdraw
	}
	if err := change(c.Context, a); err != nil {
		return fmt.Errorf("approving %s for workload %s: %w", a.Name, a.WorkloadID, err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s %s\n", a.Name, a.RegistrationDigest)
	return err
}
