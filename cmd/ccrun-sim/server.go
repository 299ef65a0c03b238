package main

import (
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/cmd/attest-server/command"
	"github.com/ccrun/ccrun/cmd/face"
)

// serverCommand is attest-server's own command line with trust in the
// simulation.
func serverCommand() *cli.Command {
	p := command.Program{
		Program: face.Program{Name: "ccrun-sim attest-server", Notice: notice},
		ServeFlags: []cli.Flag{
			rootFlag(),
			&cli.StringFlag{Name: "test-root", Usage: "take SNP evidence under the ARK and ASK in `DIR` (PEM files), too"},
		},
		Verifiers: verifiers,
	}
	return &cli.Command{
		Name:  "attest-server",
		Usage: "attest-server that releases keys to simulated workloads, too",
		Description: "The commands of attest-server. It accepts evidence of TEE \"sample\", which anybody who can\n" +
			"read the sample root can forge: " + notice + ".\n\nExample:\n" +
			"   ccrun-sim attest-server init --data DIR --name 127.0.0.1\n   ccrun-sim attest-server serve --data DIR --listen 127.0.0.1:8443",
		Subcommands: p.Commands(),
	}
}

// verifiers is production's, the sample verifier, and with --test-root another
// root for SNP.
func verifiers(c *cli.Context, e command.Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
	all, err := command.Production(e)
	if err != nil {
		return nil, err
	}
	if all[kbs.Sample], err = sample.NewVerifier(c.String("sample-root")); err != nil {
		return nil, err
	}
	if dir := c.String("test-root"); dir != "" {
		all[kbs.SNP], err = sample.NewSNPVerifier(dir,
			snp.Options{Endorsements: e.Supply, CRLs: e.Supply.CRLs(), RequireCRL: e.RequireCRL})
	}
	return all, err
}
