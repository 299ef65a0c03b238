package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/containers/image/v5/pkg/cli/sigstore/params"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload"
)

// supplyFlags are about where an image comes from and how others can tell.
func supplyFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "attach", Value: cli.NewStringSlice(workload.AttachRecord, workload.AttachProvenance),
			Usage: "`LIST` of documents to attach as OCI referrers (docker://, oci:DIR:NAME): record, provenance, sbom, none; an SBOM says publicly what is on the encrypted disk"},
		&cli.StringFlag{Name: "sign-by-sigstore", Usage: "sign as the parameter `FILE` says, see containers-sigstore-signing-params.yaml(5); private keys only"},
		&cli.StringFlag{Name: "sign-by-sigstore-private-key", Usage: "sign with the sigstore private key in `FILE`"},
		&cli.StringFlag{Name: "sign-passphrase-file", Usage: "`FILE` with the signing key's passphrase"},
		&cli.StringFlag{Name: "lint", Value: workload.LintWarn, Usage: "review of the source: warn, error or off"},
		&cli.StringSliceFlag{Name: "base-allow", Usage: "`IMAGE` that the source must be built on, compared by layers; may be repeated, any of them will do"},
	}
}

func lintLevel(c *cli.Context) string {
	if l := c.String("lint"); l != "off" {
		return l
	}
	return workload.LintOff
}

func setSupply(c *cli.Context, o *workload.Options) error {
	o.Version, o.Lint, o.AllowedBases = version(), lintLevel(c), c.StringSlice("base-allow")
	for _, a := range c.StringSlice("attach") {
		if a != "none" {
			o.Attach = append(o.Attach, a)
		}
	}
	keyFile, passFile := c.String("sign-by-sigstore-private-key"), c.String("sign-passphrase-file")
	if path := c.String("sign-by-sigstore"); path != "" {
		if keyFile != "" {
			return usage("--sign-by-sigstore and --sign-by-sigstore-private-key: one of them")
		}
		p, err := params.ParseFile(path)
		if err != nil {
			return fmt.Errorf("reading --sign-by-sigstore: %w", err)
		}
		if p.Fulcio != nil || p.RekorURL != "" || p.PrivateKeyFile == "" {
			return usage("--sign-by-sigstore %s: expected privateKeyFile, and neither fulcio nor rekorURL", path)
		}
		keyFile = p.PrivateKeyFile
		if passFile == "" {
			passFile = p.PrivateKeyPassphraseFile
		}
	}
	if keyFile == "" {
		return nil
	}
	var pass secret.Bytes
	if passFile != "" {
		var err error
		if pass, err = readSecretFile(passFile); err != nil {
			return fmt.Errorf("reading --sign-passphrase-file: %w", err)
		}
	}
	var err error
	o.Sign, err = workload.LoadSigningKey(keyFile, pass)
	return err
}

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
			&cli.StringFlag{Name: "firmware", Usage: "compute the launch measurements anew with this libkrunfw `FILE`, or directory"},
			&cli.StringSliceFlag{Name: "require", Usage: "`LIST` of documents that must be attached: record, provenance, sbom"},
			formatFlag()),
		Action: runVerifyImage,
	}
}

func runVerifyImage(c *cli.Context) error {
	if err := args(c, 1, 1, "IMAGE"); err != nil {
		return err
	}
	v, err := workload.VerifyImage(imageContext(c), workload.VerifyOptions{
		Image: c.Args().First(), KeyPath: c.String("key"), Firmware: c.String("firmware"), Require: c.StringSlice("require"), System: systemContext(c),
	})
	if err != nil {
		return buildError(c, err)
	}
	if err := printFormatted(c, v, printVerification); err != nil {
		return err
	}
	if !v.Pass {
		return fail(exitFailure, errors.New("image "+v.Image+" is not what it should be"), "do not run it; see the failed checks")
	}
	return nil
}

func printVerification(w io.Writer, a any) error {
	v := a.(*workload.ImageVerification)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
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
