package main

import (
	"fmt"

	"github.com/containers/image/v5/pkg/cli/sigstore/params"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload"
	"github.com/ccrun/ccrun/workload/referrers"
)

// trustFlags say what a source must be, and what others can check of the image.
func trustFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "attach", Value: cli.NewStringSlice(workload.AttachRecord, workload.AttachProvenance),
			Usage: "`LIST` of documents to attach as OCI referrers (docker://, oci:DIR:NAME): record, provenance, sbom, none; an SBOM says publicly what is on the encrypted disk"},
		&cli.BoolFlag{Name: "publish-source", Usage: "name the source by its digest in label, provenance and SBOM; who knows all of it but a short secret in its configuration can then find that by trying; without, only --record knows it"},
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

func setTrust(c *cli.Context, o *workload.Options) error {
	o.Version = face.Version()
	for _, a := range c.StringSlice("attach") {
		if a != "none" {
			o.Attach = append(o.Attach, a)
		}
	}
	keyFile, passFile := c.String("sign-by-sigstore-private-key"), c.String("sign-passphrase-file")
	if path := c.String("sign-by-sigstore"); path != "" {
		if keyFile != "" {
			return face.Usagef("--sign-by-sigstore and --sign-by-sigstore-private-key: one of them")
		}
		p, err := params.ParseFile(path)
		if err != nil {
			return fmt.Errorf("reading --sign-by-sigstore: %w", err)
		}
		if p.Fulcio != nil || p.RekorURL != "" || p.PrivateKeyFile == "" {
			return face.Usagef("--sign-by-sigstore %s: expected privateKeyFile, and neither fulcio nor rekorURL", path)
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
		if pass, err = face.ReadSecretFile(passFile); err != nil {
			return fmt.Errorf("reading --sign-passphrase-file: %w", err)
		}
	}
	var err error
	o.Sign, err = referrers.LoadSigningKey(keyFile, pass)
	return err
}
