package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload"
)

func updateCommand() *cli.Command {
	return &cli.Command{
		Name: "update", Usage: "let workloads start on other firmware too, without building them again", ArgsUsage: "ID...",
		Description: `Computes what --firmware measures of each workload, from what the server keeps
of it, and adds that to its registration. No image is read; disk, keys and the
identity stay. The measurements before stay valid, for good or until --not-after.
Approvals of other tenants are of one registration: they must be given anew.
For whoever registered the workload, and for admins.

Examples:
   ccrun workload update shop --firmware /usr/lib64/libkrunfw-sev.so.5.1 --not-after 720h
   ccrun workload update --all --firmware /usr/lib64/libkrunfw-sev.so.5.1`,
		Flags: append(serverFlags(), face.FormatFlag(),
			&cli.StringFlag{Name: "firmware", Usage: "libkrunfw `FILE`, or directory with firmware.json"},
			&cli.StringFlag{Name: "not-after", Usage: "end the validity of all other measurements at `DATE`, as in 2027-01-31T00:00:00Z, or after 720h"},
			&cli.BoolFlag{Name: "all", Usage: "every workload that this firmware can boot"},
			&cli.StringFlag{Name: "agent", Usage: "guest agent `FILE` that the images were built with, where the server does not have it"}),
		Action: updateWorkloads,
	}
}

func updateWorkloads(c *cli.Context) error {
	switch {
	case c.Bool("all") == c.Args().Present():
		return face.Usagef("workload update: expected either IDs or --all")
	case c.String("firmware") == "":
		return hint.With(face.Usagef("workload update: no firmware"), "name what the hosts will have with --firmware")
	}
	o := workload.UpdateOptions{IDs: c.Args().Slice(), Firmware: c.String("firmware")}
	var err error
	if o.OthersNotAfter, err = face.Until("--not-after", c.String("not-after"), time.Now()); err != nil {
		return err
	}
	if path := c.String("agent"); path != "" {
		if o.Agent, err = os.ReadFile(path); err != nil {
			return fmt.Errorf("reading guest agent: %w", err)
		}
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	o.Server = client
	all := []workload.Updated{}
	o.Each = func(u workload.Updated) error {
		all = append(all, u)
		return nil
	}
	failed := workload.Update(c.Context, o)
	if err := face.Print(c, all, printUpdates); err != nil {
		return err
	}
	return failed
}

func printUpdates(w io.Writer, all []workload.Updated) error {
	for _, u := range all {
		switch {
		case u.Error != "":
			fmt.Fprintf(w, "%s\tnot updated: %s\n", u.WorkloadID, face.Printable(u.Error))
		case u.Skipped != "":
			fmt.Fprintf(w, "%s\tskipped: %s\n", u.WorkloadID, face.Printable(u.Skipped))
		case !u.Changed:
			fmt.Fprintf(w, "%s\twas so already\n", u.WorkloadID)
		default:
			for _, m := range u.Measurements {
				fmt.Fprintf(w, "%s\t%s (%s)\n", u.WorkloadID, m.LaunchDigest, m.Profile)
			}
		}
	}
	return nil
}
