package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/podman"
)

func psCommand() *cli.Command {
	return &cli.Command{
		Name: "ps", Usage: "list this host's confidential workloads; with -q, their containers' ids alone",
		Description: `STATE is Podman's, and "waiting" for a machine that waits for its key server, and
"denied" for one that was refused its key. MEASUREMENT is what the image was
built for, SERVER whom it asks first. All of it is what host and image say:
` + "`ccrun session ls`" + ` has what was proved to the server.

Examples:
   ccrun ps -a
   ccrun ps --format '{{.Name}} {{.State}}'
   ccrun ps --format 'table {{.Name}}\t{{.Server}}'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "those that have ended, too"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print ids and measurements in full"},
			podmanURLFlag(), face.ListFormatFlag(),
		},
		Action: listContainers,
	}
}

func podmanURLFlag() cli.Flag {
	return &cli.StringFlag{Name: "url", Usage: "`URL` of Podman's API (default: as Podman finds it, or a private service)"}
}

func listContainers(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	service, err := podman.Open(c.Context, podman.Options{URL: c.String("url")})
	if err != nil {
		return err
	}
	defer service.Close()
	list, err := service.Workloads(c.Context, c.Bool("all"))
	if err != nil {
		return err
	}
	cut := cutterOf(c)
	return face.List(c, list, func(w podman.Workload) string { return cut(w.ID) }, func(to io.Writer, _ []podman.Workload) error {
		return printContainers(to, list, cut, time.Now())
	})
}

// cutterOf cuts ids and digests as Podman does, unless it was asked not to.
func cutterOf(c *cli.Context) func(string) string {
	if c.Bool("no-trunc") {
		return face.Printable
	}
	return func(s string) string { return fmt.Sprintf("%.12s", face.Printable(s)) }
}

func printContainers(to io.Writer, list []podman.Workload, cut func(string) string, now time.Time) error {
	t := face.Table(to)
	fmt.Fprintln(t, "CONTAINER ID\tNAME\tWORKLOAD\tSTATE\tSINCE\tSERVER\tMEASUREMENT\tMEMORY")
	for _, w := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", cut(w.ID), face.Printable(w.Name), face.Printable(cmp.Or(w.WorkloadID, "-")), stateOfContainer(w),
			ago(w.Since, now), face.Printable(cmp.Or(w.Server, "-")), measurementsOf(w, cut), memoryOf(w))
	}
	return t.Flush()
}

// stateOfContainer is the state, with the exit status of one that has ended.
func stateOfContainer(w podman.Workload) string {
	if w.Status == nil {
		return face.Printable(string(w.State))
	}
	return fmt.Sprintf("%s (%d)", face.Printable(string(w.State)), *w.Status)
}

// ago is how long ago t was, in Podman's words.
func ago(t *time.Time, now time.Time) string {
	if t == nil {
		return "-"
	}
	return strings.ToLower(units.HumanDuration(max(0, now.Sub(*t)))) + " ago"
}

// measurementsOf is the launch digests that the image was built for, each once.
func measurementsOf(w podman.Workload, cut func(string) string) string {
	var digests []string
	for _, m := range w.Measurements {
		digests = append(digests, cut(m.LaunchDigest))
	}
	return cmp.Or(strings.Join(digests, ","), "-")
}

func memoryOf(w podman.Workload) string {
	if w.MemoryMiB == 0 {
		return "-"
	}
	return units.BytesSize(float64(w.MemoryMiB) * (1 << 20))
}
