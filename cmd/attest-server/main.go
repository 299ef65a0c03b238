// Command attest-server releases disk keys to attested workloads. It is the
// trust anchor: it links no simulation.
package main

import (
	"os"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/cmd/attest-server/command"
	"github.com/ccrun/ccrun/cmd/face"
)

func main() {
	os.Exit(command.Program{
		Program: face.Program{Name: "attest-server", Completion: face.Completion{Values: map[string][]string{
			"role": {"admin", "publisher", "auditor"}, "format": {"json"}, "log-level": {"debug", "info", "warn", "error"},
		}}},
		Verifiers: func(_ *cli.Context, e command.Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
			return command.Production(e)
		},
	}.Main(os.Args))
}
