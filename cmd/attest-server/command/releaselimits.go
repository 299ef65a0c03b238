package command

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/store"
)

func (p Program) limitsCommand() *cli.Command {
	return &cli.Command{
		Name:        "limits",
		Usage:       "mend the release limits of workloads after the clock was wrong",
		Description: "Works on DIR itself, also while the server runs. Needs no master key.\n\nExample:\n   " + p.Name + " limits reset",
		Subcommands: []*cli.Command{{
			Name: "reset", Usage: "forget days that the clock ran ahead to",
			Description: "A workload that was released while the clock was ahead has used up its share of every day until\n" +
				"then. This lets its releases of today begin, prints its id, and leaves all others as they are.\n" +
				"See first that the clock is right.\n\nExample:\n   date && " + p.Name + " limits reset",
			Flags:  []cli.Flag{configFlag(), dataFlag()},
			Action: onStore(0, 0, "", resetLimits),
		}},
	}
}

func resetLimits(c *cli.Context, s *store.DB) error {
	ids, err := s.ResetLimits(c.Context, "local")
	for _, id := range ids {
		fmt.Fprintln(c.App.Writer, id)
	}
	return err
}
