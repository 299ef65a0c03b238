// Command attest-server releases disk keys to attested workloads. It is the
// trust anchor: it links no simulation.
package main

import (
	"os"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/cmd/attest-server/command"
)

func main() { os.Exit(run(os.Args)) }

// run is main with an exit status, for the scripts that test it.
func run(args []string) int { return command.Run(newApp(), args) }

func newApp() *cli.App {
	return command.Program{
		Name: "attest-server",
		Verifiers: func(_ *cli.Context, e command.Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
			return command.Production(e)
		},
	}.App()
}
