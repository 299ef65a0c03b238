package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/podman"
)

func topCommand() *cli.Command {
	return &cli.Command{
		Name: "top", Usage: "show what this host's running confidential workloads use, again and again", ArgsUsage: "[CONTAINER...]",
		Description: `What the machines take of the host: processor, memory, disk. Which processes run
in them nobody but the workload can see. On a terminal it goes on until Ctrl-C;
else, and with --no-stream, it prints once.

Examples:
   ccrun top
   ccrun top --no-stream shop --format '{{.Name}} {{.CPUPercent}}'`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "no-stream", Usage: "print once"},
			&cli.UintFlag{Name: "interval", Aliases: []string{"i"}, Value: 5, Usage: "`SECONDS` between two looks"},
			&cli.BoolFlag{Name: "no-trunc", Usage: "print ids in full"},
			podmanURLFlag(), face.ListFormatFlag(),
		},
		Action: watchContainers,
	}
}

// busy is a workload and what its machine uses.
type busy struct {
	podman.Workload
	podman.Usage
}

func watchContainers(c *cli.Context) error {
	if c.Uint("interval") == 0 {
		return face.Usagef("--interval 0: expected at least 1")
	}
	service, err := podman.Open(c.Context, podman.Options{URL: c.String("url")})
	if err != nil {
		return err
	}
	defer service.Close()
	again := !c.Bool("no-stream") && c.String("format") == "" && !c.Bool("quiet") && isTerminal(c.App.Writer)
	for {
		if err := lookOnce(c, service, again); err != nil || !again {
			return err
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-time.After(time.Duration(c.Uint("interval")) * time.Second):
		}
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func lookOnce(c *cli.Context, service *podman.Service, clear bool) error {
	list, err := busyOnes(c.Context, service, c.Args().Slice(), program.Log(c).Warn)
	if err != nil {
		return err
	}
	if clear {
		if _, err := io.WriteString(c.App.Writer, "\x1b[H\x1b[2J"); err != nil {
			return err
		}
	}
	cut := cutterOf(c)
	return face.List(c, list, func(b busy) string { return cut(b.ID) }, func(to io.Writer, _ []busy) error {
		return printBusy(to, list, cut, time.Now())
	})
}

// busyOnes is the running workloads of those names or ids, or all. That their usage
// cannot be told is no reason not to list them.
func busyOnes(ctx context.Context, service *podman.Service, names []string, warn func(string, ...any)) ([]busy, error) {
	running, err := service.Workloads(ctx, false)
	if err != nil {
		return nil, err
	}
	var found []busy
	var ids []string
	for _, w := range running {
		if len(names) == 0 || slices.ContainsFunc(names, w.Is) {
			found, ids = append(found, busy{Workload: w}), append(ids, w.ID)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(running, func(w podman.Workload) bool { return w.Is(n) }) {
			return nil, hint.With(fmt.Errorf("no confidential workload %s runs here", n), "`ccrun ps -a` lists them; `podman top` shows the processes of ordinary containers")
		}
	}
	usages, err := service.Usages(ctx, ids)
	if err != nil && !errors.Is(err, context.Canceled) {
		warn(err.Error(), "next", hint.Of(err))
	}
	for i := range found {
		found[i].Usage = usages[found[i].ID]
	}
	return found, nil
}

func printBusy(to io.Writer, list []busy, cut func(string) string, now time.Time) error {
	t := face.Table(to)
	fmt.Fprintln(t, "CONTAINER ID\tNAME\tWORKLOAD\tSTATE\tSINCE\tCPU %\tMEM USAGE / MACHINE\tREAD\tWRITTEN")
	for _, b := range list {
		cpu, memory, read, written := "-", "-", "-", "-"
		if b.PIDs > 0 {
			cpu, memory = fmt.Sprintf("%.1f", b.CPUPercent), units.BytesSize(float64(b.MemoryBytes))
			read, written = units.BytesSize(float64(b.ReadBytes)), units.BytesSize(float64(b.WriteBytes))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s / %s\t%s\t%s\n", cut(b.ID), face.Printable(b.Name), face.Printable(cmp.Or(b.WorkloadID, "-")), stateOfContainer(b.Workload),
			ago(b.Since, now), cpu, memory, memoryOf(b.Workload), read, written)
	}
	return t.Flush()
}
