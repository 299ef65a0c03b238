package main

import (
	"github.com/ccrun/ccrun/attest-server/command"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/urfave/cli/v2"
)

// serverCommand is attest-server with trust in the simulated platform added.
func serverCommand() *cli.Command {
	p := command.Program{
		Name:   "ccrun-sim attest-server",
		Notice: notice,
		ServeFlags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "test-root", Usage: "also take snp evidence under the PEM ARK and ASK in `DIR`"},
		},
		Verifiers: verifiers,
	}
	return &cli.Command{Name: "attest-server", Usage: "the attestation server, which also takes simulated evidence", Subcommands: p.Commands()}
}

func verifiers(c *cli.Context, e command.Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
	all, err := command.Production(e)
	if err != nil {
		return nil, err
	}
	if all[kbs.Sample], err = sample.NewVerifier(c.String("sample-root")); err != nil {
		return nil, err
	}
	if dir := c.String("test-root"); dir != "" {
		if all[kbs.SNP], err = sample.NewSNPVerifier(dir); err != nil {
			return nil, err
		}
	}
	return all, nil
}
