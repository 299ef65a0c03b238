package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/volumefile"
)

func volumeCommand() *cli.Command {
	hostFlags := func(more ...cli.Flag) []cli.Flag {
		return append([]cli.Flag{&cli.StringFlag{Name: "dir", Usage: "`DIRECTORY` of the volume files (default: " + volumefile.SystemDir + ", or of a user ~/.local/share/ccrun/volumes)"}}, more...)
	}
	const file = "NAME is the workload's id, or an absolute path."
	create := &cli.Command{
		Name: "create", Usage: "make an empty volume file on this host", ArgsUsage: "NAME...",
		Description: file + " The file is sparse: what it seems to take is holes.\n\nExample:\n   ccrun volume create shop",
		Flags:       hostFlags(), Action: createVolumes,
	}
	list := &cli.Command{
		Name: "ls", Usage: "list the volume files on this host", Description: "Example:\n   ccrun volume ls",
		Flags: hostFlags(face.ListFormatFlag()), Action: listVolumeFiles,
	}
	inspect := &cli.Command{
		Name: "inspect", Usage: "show what a volume file says of itself, and whether a machine has it", ArgsUsage: "NAME",
		Description: file + " `ccrun volume status` tells what the server knows.\n\nExample:\n   ccrun volume inspect shop",
		Flags:       hostFlags(face.FormatFlag()), Action: inspectVolumeFile,
	}
	grow := &cli.Command{
		Name: "grow", Usage: "make room for a larger volume", ArgsUsage: "NAME",
		Description: "The volume itself grows at the next start of an image that was built with the larger size=SIZE; the runtime\n" +
			"makes that room, too. Ahead of time, this finds out whether the host's file system takes the file.\n\n" +
			"Example:\n   ccrun volume grow shop --size 100g",
		Flags: hostFlags(
			&cli.StringFlag{Name: "size", Required: true, Usage: "`SIZE` of the volume"},
			&cli.IntFlag{Name: "slot", Usage: "`NUMBER` of the volume's area, as inspect shows it"}), Action: growVolumeFile,
	}
	remove := &cli.Command{
		Name: "rm", Usage: "delete volume files that no machine has", ArgsUsage: "NAME...",
		Description: "The data is gone. The server keeps keys and generations: `accept-rollback --empty` lets the workload begin anew.\n\n" +
			"Example:\n   ccrun volume rm shop",
		Flags: hostFlags(), Action: removeVolumeFiles,
	}
	backup := &cli.Command{
		Name: "backup", Usage: "copy the volumes of a stopped workload", ArgsUsage: "NAME FILE",
		Description: "FILE may be - for standard output. It holds ciphertext, and what the file's holes leave out. Only the backup of a\n" +
			"workload's last clean stop can be restored without the owner's `accept-rollback`.\n\n" +
			"Example:\n   ccrun volume backup shop shop-2026-12-01.backup",
		Flags: hostFlags(), Action: backupVolumes,
	}
	restore := &cli.Command{
		Name: "restore", Usage: "make a volume file of a backup", ArgsUsage: "NAME FILE",
		Description: "FILE may be - for standard input. The volume file must not exist.\n\nExample:\n   ccrun volume restore shop shop-2026-12-01.backup",
		Flags:       hostFlags(), Action: restoreVolumes,
	}
	return &cli.Command{
		Name:  "volume",
		Usage: "keep data that outlives containers: encrypted volumes of workloads",
		Description: "`ccrun build --volume NAME:PATH` gives a workload a volume. On the host all volumes of a workload are in one file,\n" +
			"which `create` makes, and which the runtime takes by the workload's id, or by the container's annotation\n" +
			"io.ccrun.volumes=NAME. The keys are the server's, and so is the number of the state in which each was left:\n" +
			"an older or newer one is refused, until the owner accepts it.\n\n" +
			"Example:\n   ccrun volume create shop && ccrun run localhost/shop-cw",
		Subcommands: append([]*cli.Command{create, list, inspect, grow, remove, backup, restore}, ownerVolumeCommands()...),
	}
}

// volumePath is the volume file that the argument n names.
func volumePath(c *cli.Context, n int) (string, error) {
	dir, err := volumeDir(c)
	if err != nil {
		return "", err
	}
	return volumefile.Path(dir, c.Args().Get(n))
}

func volumeDir(c *cli.Context) (string, error) {
	if dir := c.String("dir"); dir != "" {
		return dir, nil
	}
	return volumefile.Dir()
}

// eachVolumeFile does act to every volume file given and prints it when done.
func eachVolumeFile(c *cli.Context, act func(path string) error) error {
	if err := face.Args(c, 1, -1, "NAME..."); err != nil {
		return err
	}
	for n := range c.NArg() {
		path, err := volumePath(c, n)
		if err == nil {
			err = act(path)
		}
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.App.Writer, path); err != nil {
			return err
		}
	}
	return nil
}

func createVolumes(c *cli.Context) error { return eachVolumeFile(c, volumefile.Create) }

func removeVolumeFiles(c *cli.Context) error { return eachVolumeFile(c, volumefile.Remove) }

func listVolumeFiles(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	dir, err := volumeDir(c)
	if err != nil {
		return err
	}
	names, err := volumefile.Names(dir)
	if err != nil {
		return fmt.Errorf("listing volume files: %w", err)
	}
	all := []volumefile.Status{}
	for _, name := range names {
		path, err := volumefile.Path(dir, name)
		if err != nil {
			return err
		}
		s, err := volumefile.Inspect(path)
		if err != nil {
			return err
		}
		all = append(all, s)
	}
	return face.List(c, all, func(s volumefile.Status) string { return s.File }, printVolumeFiles)
}

func inspectVolumeFile(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "NAME"); err != nil {
		return err
	}
	path, err := volumePath(c, 0)
	if err != nil {
		return err
	}
	s, err := volumefile.Inspect(path)
	if err != nil {
		return err
	}
	return face.Print(c, s, func(w io.Writer, s volumefile.Status) error { return printVolumeFiles(w, []volumefile.Status{s}) })
}

func printVolumeFiles(w io.Writer, all []volumefile.Status) error {
	t := face.Table(w)
	fmt.Fprintln(t, "FILE\tON DISK\tATTACHED\tSLOT\tWORKLOAD\tVOLUME\tSIZE")
	for _, s := range all {
		attached := "no"
		if s.Attached {
			attached = fmt.Sprintf("%.12s", s.Container)
		}
		line := fmt.Sprintf("%s\t%s\t%s", face.Printable(s.File), units.BytesSize(float64(s.AllocatedBytes)), face.Printable(attached))
		if len(s.Areas) == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\n", line)
		}
		for _, a := range s.Areas {
			if a.Problem != "" {
				fmt.Fprintf(t, "%s\t%d\t-\t%s\t-\n", line, a.Slot, face.Printable(a.Problem))
				continue
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\n", line, a.Slot, face.Printable(a.Workload), face.Printable(a.Name), units.BytesSize(float64(a.Bytes)))
		}
	}
	return t.Flush()
}

func growVolumeFile(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "NAME"); err != nil {
		return err
	}
	path, err := volumePath(c, 0)
	if err != nil {
		return err
	}
	n, err := units.RAMInBytes(c.String("size"))
	if err != nil {
		return face.Usagef("--size %q: expected a number with a unit, as in 8g or 8GiB", c.String("size"))
	}
	return volumefile.Grow(path, c.Int("slot"), n)
}

func backupVolumes(c *cli.Context) (err error) {
	if err := face.Args(c, 2, 2, "NAME FILE"); err != nil {
		return err
	}
	path, err := volumePath(c, 0)
	if err != nil {
		return err
	}
	if c.Args().Get(1) == "-" {
		return volumefile.Backup(path, c.App.Writer)
	}
	f, err := os.OpenFile(c.Args().Get(1), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	if err = volumefile.Backup(path, f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

func restoreVolumes(c *cli.Context) error {
	if err := face.Args(c, 2, 2, "NAME FILE"); err != nil {
		return err
	}
	path, err := volumePath(c, 0)
	if err != nil {
		return err
	}
	if c.Args().Get(1) == "-" {
		return volumefile.Restore(path, c.App.Reader)
	}
	f, err := os.Open(c.Args().Get(1))
	if err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	defer func() { _ = f.Close() }()
	return volumefile.Restore(path, f)
}
