package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
)

func incidentCommand() *cli.Command {
	return &cli.Command{
		Name: "incident", Usage: "deny a machine from now on, and plan what is to be rotated", ArgsUsage: "MACHINE",
		Description: `MACHINE is a CHIP_ID or PPID, as ` + "`attest-server machines`" + ` lists them. In one transaction
nothing is released to it any more, not to sessions under way either, and what it
was granted is listed. What a broken machine was given its attacker has: a DiskKey
is rotated, and what a workload kept behind it is to be thought of as read. Run it
again to see what is left to do. Needs an admin token of the operator's.

Example:
   ccrun incident --server https://kbs.example:8443 --ca ca.pem --token-file admin 0102030405060708`,
		Flags: append(serverFlags(), face.FormatFlag(),
			&cli.BoolFlag{Name: "lift", Usage: "accept the machine again"}),
		Action: runIncident,
	}
}

func runIncident(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "MACHINE"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	if c.Bool("lift") {
		return client.LiftIncident(c.Context, c.Args().First())
	}
	i, err := client.DeclareIncident(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	return face.Print(c, i, printIncident)
}

func printIncident(w io.Writer, i *kbs.Incident) error {
	fmt.Fprintf(w, "machine %s is denied since %s\n", i.Machine.ID, i.Machine.DeniedAt.Format(time.RFC3339))
	left := 0
	for _, g := range i.Granted {
		state := "settled: revoked, removed or rotated since"
		if !g.Settled {
			left++
			state = "rotate: ccrun workload rotate " + g.WorkloadID + " IMAGE"
		}
		fmt.Fprintf(w, "%-32s granted %s, session %s; %s\n", g.WorkloadID, g.At.Format(time.RFC3339), g.Session, state)
	}
	_, err := fmt.Fprintf(w, "%d workloads were granted to it, %d are to be rotated\n", len(i.Granted), left)
	return err
}
