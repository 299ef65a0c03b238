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
	chip := &cli.Command{
		Name: "chip", Usage: "deny a machine from now on, and stage new disk keys for what it was granted", ArgsUsage: "ID",
		Description: `ID is a CHIP_ID or PPID, as ` + "`attest-server machines`" + ` lists them. In one transaction
nothing is released to it any more, not to sessions under way either; what it was
granted is listed; and for each of these workloads a new disk key is staged, which
` + "`ccrun workload rotate`" + ` puts into its image. What a broken machine was given its
attacker has: what a workload kept behind the old key is to be thought of as read.
Run it again to see what is left to do. Needs an admin token of the operator's.

Example:
   ccrun incident chip --server https://kbs.example:8443 --ca ca.pem --token-file admin 0102030405060708`,
		Flags: append(serverFlags(), face.FormatFlag(),
			&cli.BoolFlag{Name: "lift", Usage: "accept the machine again; what was staged stays, until rotated or aborted"}),
		Action: runIncident,
	}
	return &cli.Command{
		Name: "incident", Usage: "end what a broken machine may have",
		Description: "Example:\n   ccrun incident chip 0102030405060708",
		Subcommands: []*cli.Command{chip},
	}
}

func runIncident(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "ID"); err != nil {
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
		rotate := "ccrun workload rotate " + g.WorkloadID + " IMAGE"
		switch {
		case g.Settled:
		case g.DrawnBefore:
			state = "a rotation from before is under way, whose key it may have: " + rotate + ", then this again"
		case g.Rotation != "":
			state = "new key staged: " + rotate
		default:
			state = "its dialect knows no rotation: build it under another id, then ccrun workload revoke " + g.WorkloadID
		}
		if !g.Settled {
			left++
		}
		fmt.Fprintf(w, "%-32s granted %s, session %s; %s\n", g.WorkloadID, g.At.Format(time.RFC3339), g.Session, state)
	}
	_, err := fmt.Fprintf(w, "%d workloads were granted to it, %d are not settled\n", len(i.Granted), left)
	return err
}
