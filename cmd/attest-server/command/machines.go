package command

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
)

func (p Program) machinesCommand() *cli.Command {
	return &cli.Command{
		Name: "machines", Usage: "list the machines whose evidence was authentic, with what is open on each",
		Description: "Example:\n   " + p.Name + " machines --advisory AMD-SB-3030",
		Flags: []cli.Flag{
			configFlag(), dataFlag(), face.FormatFlag(),
			&cli.StringFlag{Name: "advisory", Usage: "those alone on which advisory `ID` was open when they were last seen"},
		},
		Action: listMachines,
	}
}

// machinePage is how many machines are read at once.
const machinePage = 500

func listMachines(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	all := []kbs.Machine{}
	err := withStore(c, func(s *store.DB) error {
		for after := ""; ; {
			page, err := s.Machines(c.Context, after, machinePage)
			if err != nil {
				return err
			}
			all = append(all, page.Machines...)
			if after = page.Next; after == "" {
				return nil
			}
		}
	})
	if err != nil {
		return err
	}
	if id := c.String("advisory"); id != "" {
		all = slices.DeleteFunc(all, func(m kbs.Machine) bool { return !slices.Contains(m.Advisories, id) })
	}
	return face.Print(c, kbs.MachineList{Machines: all}, printMachines)
}

func printMachines(w io.Writer, l kbs.MachineList) error {
	for _, m := range l.Machines {
		fmt.Fprintf(w, "%s\n   %s %s %s, last seen %s\n", m.ID, m.TEE, m.Product, m.Silicon, m.LastSeen.Format(time.RFC3339))
		if m.TCB != nil {
			fmt.Fprintf(w, "   %s\n", m.TCB)
		}
		if m.WentBack() {
			fmt.Fprintf(w, "   WENT BACK from %s\n", m.Highest)
		}
		if len(m.Advisories) > 0 {
			fmt.Fprintf(w, "   open: %s\n", strings.Join(m.Advisories, ", "))
		}
		if m.DeniedAt != nil {
			fmt.Fprintf(w, "   DENIED since %s\n", m.DeniedAt.Format(time.RFC3339))
		}
	}
	_, err := fmt.Fprintf(w, "%d machines\n", len(l.Machines))
	return err
}
