package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/workload"
)

func sourcePassphraseFlag() cli.Flag {
	return &cli.StringFlag{Name: "source-passphrase-file", Usage: "SOURCE is a workload image, of buildah mkcw for example: `FILE` has its disk's passphrase, build what is on that disk"}
}

func convertCommand() *cli.Command {
	c := buildCommand()
	c.Name = "convert"
	c.Usage = "turn a workload image of buildah mkcw into one of ours"
	c.Description = `SOURCE is a workload image whose disk's passphrase is known: of buildah mkcw,
podman build --cw, oci2cw or --classic. Its files and its process are built
anew, with integrity, a measurement and keys of their own. The old disk has no
integrity: what is converted is what its image's digest names.

Example:
   ccrun convert --source-passphrase-file old.pass --attest-url https://kbs.example:8443 \
       --attest-ca ca.pem --token-file token docker://registry.example/app-mkcw docker://registry.example/app-cw`
	c.Action = func(c *cli.Context) error {
		if c.String("source-passphrase-file") == "" {
			return fail(exitUsage, errors.New("convert needs the passphrase of the source's disk"), "give --source-passphrase-file FILE; `ccrun build` takes ordinary images")
		}
		return runBuild(c)
	}
	return c
}

func setSourcePassphrase(c *cli.Context, o *workload.Options) error {
	path := c.String("source-passphrase-file")
	if path == "" {
		return nil
	}
	b, err := readSecretFile(path)
	if err != nil {
		return fmt.Errorf("reading --source-passphrase-file: %w", err)
	}
	if b.Len() == 0 {
		return usage("--source-passphrase-file %s is empty", path)
	}
	o.SourcePassphrase = b
	return nil
}

// classicOptions takes the flags that mean something to the old init; the
// others are refused rather than ignored.
func classicOptions(c *cli.Context) (*workload.ClassicOptions, error) {
	for _, name := range []string{"env-allow", "args-allow", "logs", "attest-ca", "pin", "agent", "integrity", "reproducible", "policy", "attach", "sign-by-sigstore", "sign-by-sigstore-private-key"} {
		if c.IsSet(name) {
			return nil, usage("--%s: not with --classic, the old init has no such thing", name)
		}
	}
	o := &workload.ClassicOptions{Profile: measure.Profile(c.String("profile")), Options: workload.Options{
		Source: c.Args().Get(0), Destination: c.Args().Get(1),
		TEE: kbs.TEE(c.String("tee")), WorkloadID: c.String("workload-id"),
		Servers:    krun.Servers{URLs: c.StringSlice("attest-url")},
		Filesystem: c.String("fs"), RecordPath: c.String("record"),
		Firmware: c.String("firmware"), System: systemContext(c),
		Warn: func(s string) { slog.Warn(s) },
		Lint: lintLevel(c), AllowedBases: c.StringSlice("base-allow"),
	}}
	if c.Uint("cpus") > 255 {
		return nil, usage("--cpus %d: expected 1 to 8", c.Uint("cpus"))
	}
	o.CPUs = uint8(c.Uint("cpus"))
	if o.Firmware == "" {
		path, err := firmware.FindInstalled()
		if err != nil {
			return nil, fail(exitNotCapable, err, "name libkrunfw-sev.so.4 with --firmware")
		}
		o.Firmware = path
	}
	for _, set := range []func(*cli.Context, *workload.Options) error{setTime, setSizes, setPassphrase, setSourcePassphrase, setDecryptionKeys, setRelease} {
		if err := set(c, &o.Options); err != nil {
			return nil, err
		}
	}
	if o.Release != nil {
		return nil, usage("--classic: its protocol cannot register release limits")
	}
	if c.Bool("no-register") {
		return o, nil
	}
	server := c.String("server")
	if server == "" && len(o.Servers.URLs) > 0 {
		server = o.Servers.URLs[0]
	}
	client, err := legacyClient(c, server)
	if err != nil {
		return nil, err
	}
	o.Legacy = client
	return o, nil
}

func legacyClient(c *cli.Context, server string) (*workload.LegacyClient, error) {
	a, err := adminClient(server, c.String("ca"), c.String("token-file"))
	if err != nil {
		return nil, err
	}
	return &workload.LegacyClient{URL: a.URL, Token: a.Token, RootCAs: a.RootCAs}, nil
}

func runClassic(c *cli.Context) error {
	o, err := classicOptions(c)
	if err != nil {
		return err
	}
	defer o.Passphrase.Wipe()
	defer o.SourcePassphrase.Wipe()
	slog.Warn(workload.ClassicWarning)
	bar := newProgress(c)
	o.Progress = bar.show
	res, err := workload.BuildClassic(imageContext(c), *o)
	bar.clear()
	if err != nil {
		return buildError(c, err)
	}
	if err := writeIDs(c, res.ImageID, res.Digest); err != nil {
		return err
	}
	return printFormatted(c, res, func(w io.Writer, _ any) error {
		fmt.Fprintf(w, "image:       %s\ndigest:      %s\nworkload:    %s\nmeasurement: %s (%s, %d vCPU, %d MiB)\nregistered:  %v\n",
			res.Image, res.Digest, res.WorkloadID, res.Measurement, res.Profile, o.CPUs, o.MemoryMiB, res.Registered)
		if res.Record != "" {
			fmt.Fprintf(w, "record:      %s (holds the passphrase)\n", res.Record)
		}
		return nil
	})
}

func registerClassic(c *cli.Context, r *workload.LegacyRegistration) error {
	if c.IsSet("policy") {
		return usage("--policy: the classic protocol cannot register rules; a tenant's or server's policy holds for it, too")
	}
	client, err := legacyClient(c, c.String("server"))
	if err != nil {
		return err
	}
	if err := client.RegisterLegacy(c.Context, *r); err != nil {
		return fmt.Errorf("registering workload %s: %w", r.WorkloadID, err)
	}
	out := struct {
		WorkloadID string `json:"workload_id"`
	}{r.WorkloadID}
	return printFormatted(c, out, func(w io.Writer, _ any) error {
		_, err := fmt.Fprintf(w, "workload %s registered\n", out.WorkloadID)
		return err
	})
}
