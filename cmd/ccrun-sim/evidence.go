package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/cmd/face"
)

func evidenceCommand() *cli.Command {
	return &cli.Command{
		Name:  "evidence",
		Usage: "sign a report of your choice, for tests",
		Description: "Writes report.bin (1184 bytes) and certificates.bin (a GHCB certificate table) to DIR,\n" +
			"as a guest with that launch digest would get them.\n\nExample:\n" +
			"   ccrun-sim evidence --measurement HEX --report-data HEX --output DIR",
		Flags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "measurement", Required: true, Usage: "launch digest, 96 `HEX` digits"},
			&cli.StringFlag{Name: "report-data", Usage: "128 `HEX` digits (default: random)"},
			&cli.StringFlag{Name: "host-data", Usage: "64 `HEX` digits (default: zero)"},
			&cli.Uint64Flag{Name: "policy", Value: sample.DefaultPolicy, Usage: "guest policy, `BITS`"},
			&cli.UintFlag{Name: "vmpl", Usage: "`LEVEL` that asks, 0 to 3"},
			&cli.StringFlag{Name: "output", Required: true, Usage: "`DIR`, made if missing"},
		},
		Action: makeEvidence,
	}
}

func makeEvidence(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	launch, data, err := launchOf(c)
	if err != nil {
		return err
	}
	chip, err := sample.OpenAttester(c.String("sample-root"))
	if err != nil {
		return err
	}
	ev, err := chip.Sign(data, launch)
	if err != nil {
		return err
	}
	dir := c.String("output")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing evidence: %w", err)
	}
	for name, b := range map[string][]byte{"report.bin": ev.Report, "certificates.bin": ev.Certificates} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return fmt.Errorf("writing evidence: %w", err)
		}
	}
	return nil
}

func launchOf(c *cli.Context) (sample.Launch, kbs.ReportData, error) {
	var data kbs.ReportData
	var digest kbs.LaunchDigest
	if err := digest.UnmarshalText([]byte(c.String("measurement"))); err != nil {
		return sample.Launch{}, data, face.Usagef("--measurement: %w", err)
	}
	launch, err := sample.NewLaunch(digest)
	if err != nil {
		return sample.Launch{}, data, err
	}
	launch.Policy, launch.VMPL = c.Uint64("policy"), uint32(c.Uint("vmpl"))
	if err := hexFlag(c, "host-data", launch.HostData[:]); err != nil {
		return sample.Launch{}, data, err
	}
	if !c.IsSet("report-data") {
		_, err := rand.Read(data[:])
		return launch, data, err
	}
	return launch, data, hexFlag(c, "report-data", data[:])
}

// hexFlag decodes a flag that fills out exactly, if it was given.
func hexFlag(c *cli.Context, name string, out []byte) error {
	if !c.IsSet(name) {
		return nil
	}
	b, err := hex.DecodeString(c.String(name))
	if err != nil || len(b) != len(out) {
		return face.Usagef("--%s: expected %d hex digits", name, 2*len(out))
	}
	copy(out, b)
	return nil
}
