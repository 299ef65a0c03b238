package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
)

// ownerVolumeCommands are about what the server keeps.
func ownerVolumeCommands() []*cli.Command {
	return []*cli.Command{
		{
			Name: "status", Usage: "show what the server knows of a workload's volumes", ArgsUsage: "ID",
			Description: "Example:\n   ccrun volume status shop",
			Flags:       append(serverFlags(), face.ListFormatFlag()), Action: showVolumes,
		},
		{
			Name: "accept-rollback", Usage: "let the workload's next guest go on with a volume that is not as it was left (its owner, or role admin)", ArgsUsage: "ID VOLUME",
			Description: "What the record is newer than is lost. It holds for one start, and is audited.\n\n" +
				"Example:\n   ccrun volume accept-rollback shop data",
			Flags:  append(serverFlags(), &cli.BoolFlag{Name: "empty", Usage: "accept that the volume is gone: the next guest makes an empty one"}),
			Action: acceptRollback,
		},
		{
			Name: "rekey", Usage: "have the workload's next guest encrypt a volume under a new key (the workload's owner, or role admin)", ArgsUsage: "ID VOLUME...",
			Description: "All of the volume is copied to a second place in its file, before the workload starts; if power goes meanwhile, the\n" +
				"volume is as it was, and the next guest begins again. In the end the server forgets the old key, which opens\n" +
				"older copies of the file for whoever has learnt it, and nothing of later. `status` shows what is still to come;\n" +
				"the host needs room for both copies until the start after.\n\n" +
				"Example:\n   ccrun volume rekey shop data",
			Flags: serverFlags(), Action: rekeyVolumes,
		},
		{
			Name: "forget", Usage: "delete the key of a volume for good (the workload's owner, or role admin)", ArgsUsage: "ID VOLUME...",
			Description: "No copy of the volume can ever be opened again.\n\nExample:\n   ccrun volume forget shop data",
			Flags:       serverFlags(), Action: forgetVolumes,
		},
	}
}

func showVolumes(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "ID"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	all, err := client.Volumes(c.Context, c.Args().First())
	if err != nil {
		return fmt.Errorf("reading the volumes of workload %s: %w", c.Args().First(), err)
	}
	if all == nil {
		all = []kbs.VolumeStatus{}
	}
	return face.List(c, all, func(v kbs.VolumeStatus) string { return v.Name }, printVolumes)
}

func printVolumes(w io.Writer, all []kbs.VolumeStatus) error {
	t := face.Table(w)
	fmt.Fprintln(t, "VOLUME\tGENERATION\tOPENED\tSESSION\tCLOSED\tACCEPTS\tREFUSED")
	for _, v := range all {
		generation := fmt.Sprint(v.Generation)
		if v.Staged != 0 {
			generation += fmt.Sprintf(" or %d", v.Staged)
		}
		accepts := "as it was left"
		switch v.Accepts {
		case kbs.VolumeGeneration:
			accepts = "ANY STATE, once"
		case kbs.VolumeEmpty:
			accepts = "AN EMPTY ONE, once"
		}
		if v.Rekey {
			accepts += ", to be rekeyed"
		}
		session, refused := "-", "-"
		if v.Session != "" {
			session = face.Printable(v.Session)
		}
		if v.Refused != "" {
			refused = face.Printable(v.Refused)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", face.Printable(v.Name), generation, face.Time(v.OpenedAt, "never"), session, face.Time(v.ClosedAt, "-"), accepts, refused)
	}
	return t.Flush()
}

func acceptRollback(c *cli.Context) error {
	if err := face.Args(c, 2, 2, "ID VOLUME"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	id, name := c.Args().Get(0), c.Args().Get(1)
	if _, err := client.AcceptRollback(c.Context, id, name, c.Bool("empty")); err != nil {
		return fmt.Errorf("accepting volume %s of workload %s as it is: %w", name, id, err)
	}
	_, err = fmt.Fprintln(c.App.Writer, name)
	return err
}

func rekeyVolumes(c *cli.Context) error {
	return eachVolume(c, func(client *kbs.AdminClient, id, name string) error {
		if _, err := client.RekeyVolume(c.Context, id, name); err != nil {
			return fmt.Errorf("rekeying volume %s of workload %s: %w", name, id, err)
		}
		return nil
	})
}

func forgetVolumes(c *cli.Context) error {
	return eachVolume(c, func(client *kbs.AdminClient, id, name string) error {
		if err := client.ForgetVolume(c.Context, id, name); err != nil {
			return fmt.Errorf("forgetting volume %s of workload %s: %w", name, id, err)
		}
		return nil
	})
}

// eachVolume does act to every volume given of a workload, and prints it when done.
func eachVolume(c *cli.Context, act func(client *kbs.AdminClient, id, name string) error) error {
	if err := face.Args(c, 2, -1, "ID VOLUME..."); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	id := c.Args().First()
	for _, name := range c.Args().Tail() {
		if err := act(client, id, name); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.App.Writer, name); err != nil {
			return err
		}
	}
	return nil
}
