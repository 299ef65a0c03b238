package main

import (
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/workload"
)

// classicOptions takes the flags that mean something to the old init; the
// others are refused rather than ignored.
func classicOptions(c *cli.Context) (*workload.ClassicOptions, error) {
	for _, name := range []string{"replace", "env-allow", "args-allow", "secret", "secret-allow", "secret-refresh", "signals-allow", "network", "dns", "logs", "log-recipient", "attest-wait", "attest-ca", "pin", "agent", "integrity", "cipher", "reproducible", "policy", "allow-advisory", "attach", "sign-by-sigstore", "sign-by-sigstore-private-key"} {
		if c.IsSet(name) {
			return nil, face.Usagef("--%s: not with --classic, the old init has no such thing", name)
		}
	}
	limits, err := releaseLimits(c, time.Now())
	if err != nil {
		return nil, err
	}
	if limits != nil {
		return nil, face.Usagef("--classic: its protocol cannot register release limits")
	}
	o := &workload.ClassicOptions{
		Destination: c.Args().Get(1), WorkloadID: c.String("workload-id"), RecordPath: c.String("record"), PublishSource: c.Bool("publish-source"),
		Servers: krun.Servers{URLs: c.StringSlice("attest-url")}, Profile: measure.Profile(c.String("profile")),
	}
	if err := setParts(c, &o.Environment, &o.SourceOptions, &o.MachineOptions, &o.DiskOptions); err != nil {
		return nil, err
	}
	if list := firmwareOf(c); len(list) > 0 {
		o.Firmware, o.MoreFirmware = list[0], list[1:]
	}
	if o.Firmware == "" {
		path, err := firmware.FindInstalled()
		if err != nil {
			return nil, hint.With(face.WithStatus(face.NotCapable, err), "name libkrunfw-sev.so.4 with --firmware")
		}
		o.Firmware = path
	}
	if c.Bool("no-register") {
		return o, nil
	}
	v, err := registrar(c, o.Servers.URLs)
	if err != nil {
		return nil, err
	}
	client, err := legacyClient(v)
	if err != nil {
		return nil, err
	}
	o.Legacy = client
	return o, nil
}

func runClassic(c *cli.Context) error {
	o, err := classicOptions(c)
	if err != nil {
		return err
	}
	defer o.Passphrase.Wipe()
	defer o.SourcePassphrase.Wipe()
	program.Log(c).Warn(workload.ClassicWarning)
	bar := newProgress(c)
	o.Progress = bar.show
	res, err := workload.BuildClassic(imageContext(c), *o)
	bar.clear()
	if err != nil {
		return buildError(err)
	}
	if err := writeIDs(c, res.ImageID, res.Digest); err != nil {
		return err
	}
	return face.Print(c, res, func(w io.Writer, _ *workload.ClassicResult) error {
		fmt.Fprintf(w, "image:       %s\ndigest:      %s\nworkload:    %s\nmeasurement: %s (%s, %d vCPU, %d MiB)\nregistered:  %v\n",
			res.Image, res.Digest, res.WorkloadID, res.Measurement, res.Profile, o.CPUs, o.MemoryMiB, res.Registered)
		if res.Record != "" {
			fmt.Fprintf(w, "record:      %s (holds the passphrase)\n", res.Record)
		}
		return nil
	})
}
