package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload"
)

func verifyImageCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify-image",
		Usage:     "check a workload image: signature, content, attached documents, measurement",
		ArgsUsage: "IMAGE",
		Description: `Needs --key, or a signature policy (policy.json) that accepts no unsigned
image. With --key the provenance must be signed by that key too, and an image
outside a registry must have it. Every byte of the image is read.

Exit status 0 if everything checked is right, 1 if not.

Examples:
   ccrun verify-image --key build.pub --require record,provenance docker://registry.example/app-cw:1
   ccrun verify-image --key build.pub --firmware /usr/lib64/libkrunfw-sev.so.5 oci:images:app-cw`,
		Flags: append(imageFlags(),
			&cli.StringFlag{Name: "key", Usage: "PEM `FILE` with the public key that must have signed"},
			&cli.GenericFlag{Name: "firmware", Value: &stringList{}, Usage: "compute the launch measurements anew with this libkrunfw `FILE`, or directory; may be repeated: all that the image was built for"},
			&cli.StringFlag{Name: "record", Usage: "compare with the owner's own `FILE` of ccrun build --record, which also says what the image was built from"},
			&cli.StringSliceFlag{Name: "require", Usage: "`LIST` of documents that must be attached: record, provenance, sbom"},
			face.FormatFlag()),
		Action: runVerifyImage,
	}
}

func runVerifyImage(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "IMAGE"); err != nil {
		return err
	}
	o := workload.VerifyOptions{
		Image: c.Args().First(), KeyPath: c.String("key"), Firmware: firmwareOf(c), Require: c.StringSlice("require"), System: systemContext(c),
	}
	if path := c.String("record"); path != "" {
		var err error
		if o.Record, err = workload.ReadRecord(path); err != nil {
			return err
		}
	}
	v, err := workload.VerifyImage(imageContext(c), o)
	if err != nil {
		return buildError(err)
	}
	if err := face.Print(c, v, printVerification); err != nil {
		return err
	}
	if !v.Pass {
		return hint.With(errors.New("image "+v.Image+" is not what it should be"), "do not run it; see the failed checks")
	}
	return nil
}

func printVerification(w io.Writer, v *workload.ImageVerification) error {
	t := face.Table(w)
	fmt.Fprintf(t, "image\t%s\ndigest\t%s\n", v.Image, v.Digest)
	for _, c := range v.Checks {
		state := "ok"
		if !c.Pass {
			state = "FAILED"
		}
		fmt.Fprintf(t, "%s\t%s: %s\n", c.Rule, state, c.Detail)
	}
	return t.Flush()
}
