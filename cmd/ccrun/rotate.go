package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload"
)

func rotateCommand() *cli.Command {
	return &cli.Command{
		Name: "rotate", Usage: "replace the workload's disk key, in its image and with the server", ArgsUsage: "ID IMAGE [DEST]",
		Description: `The LUKS header of the disk in IMAGE gets a keyslot for a new disk key; nothing
is encrypted anew and the launch measurement stays. The rotated image goes to
DEST, or takes IMAGE's name; signatures of the old one do not cover it. The
server draws both keys and shows neither. Until the last step it releases the
old key and the new one, each to the image that needs it: a rotation that was
interrupted is ended by running it again. With --keep-old the last step is left
to ` + "`ccrun workload rotate --commit ROTATION ID`" + `, when the new image is everywhere.
--abort ROTATION forgets the new key: images that have it never open again.

Example:
   ccrun workload rotate shop registry.example/shop:1 docker://registry.example/shop:1`,
		Flags: append(append(serverFlags(), imageFlags()...), face.FormatFlag(),
			&cli.BoolFlag{Name: "keep-old", Usage: "leave the old key valid"},
			&cli.StringFlag{Name: "commit", Usage: "forget the old key: end `ROTATION`"},
			&cli.StringFlag{Name: "abort", Usage: "forget the new key: call `ROTATION` off"}),
		Action: rotateWorkload,
	}
}

func rotateWorkload(c *cli.Context) error {
	commit, abort := c.String("commit"), c.String("abort")
	if commit != "" && abort != "" || (commit != "" || abort != "") && c.Bool("keep-old") {
		return face.Usagef("workload rotate: only one of --keep-old, --commit and --abort")
	}
	if commit != "" || abort != "" {
		return endRotation(c, commit, abort)
	}
	if err := face.Args(c, 2, 3, "ID IMAGE [DEST]"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	o := workload.RotateOptions{
		WorkloadID: c.Args().Get(0), Source: c.Args().Get(1), Destination: c.Args().Get(2),
		Server: client, KeepOld: c.Bool("keep-old"), Environment: workload.Environment{System: systemContext(c), Warn: func(s string) { program.Log(c).Warn(s) }},
	}
	if o.Destination == "" {
		o.Destination = o.Source
	}
	p := newProgress(c)
	o.Progress = p.show
	res, err := workload.Rotate(imageContext(c), o)
	p.clear()
	if err != nil {
		return err
	}
	return face.Print(c, res, func(w io.Writer, _ *workload.RotateResult) error {
		state := "the old disk key is gone"
		if !res.Committed {
			state = "the old disk key is valid until `ccrun workload rotate --commit " + res.Rotation + " " + res.WorkloadID + "`"
		}
		_, err := fmt.Fprintf(w, "workload %s rotated in %s (%s): %s\n", res.WorkloadID, res.Image, res.Digest, state)
		return err
	})
}

func endRotation(c *cli.Context, commit, abort string) error {
	if err := face.Args(c, 1, 1, "ID"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	id := c.Args().First()
	if commit != "" {
		err = workload.Commit(c.Context, client, id, commit, "")
	} else if _, err = client.Rotate(c.Context, id, kbs.RotateRequest{Abort: &kbs.RotateAbort{Rotation: abort}}); err != nil {
		err = fmt.Errorf("aborting rotation of workload %s: %w", id, err)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.App.Writer, id)
	return err
}
