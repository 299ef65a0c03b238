// Command ccrun-sim simulates a TEE where there is none: it PROTECTS NOTHING.
// It is the attestation server with trust in the simulation, the simulated
// platform's tools, and, under the name krun-sim, the OCI runtime that boots
// workload images in QEMU.
package main

import (
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/krun/sim"
)

func main() { os.Exit(run(os.Args)) }

// run is main with an exit status, for the scripts that test it.
func run(args []string) int {
	if len(args) > 0 && filepath.Base(args[0]) == sim.RuntimeName {
		return runtimeMain(args)
	}
	return program.Main(newApp(), args)
}

func newApp() *cli.App {
	app := &cli.App{
		Usage: notice,
		Description: "Runs ccrun's whole path on a machine without a TEE. The host can read and change\n" +
			"everything that runs in it: use it to learn and to test, never to protect anything.\n" +
			"Installed under the name " + sim.RuntimeName + " it is an OCI runtime:\n\n" +
			"   podman run --runtime /usr/local/bin/" + sim.RuntimeName + " IMAGE",
		Commands: []*cli.Command{upCommand(), downCommand(), serverCommand(), initCommand(), firmwareCommand(), evidenceCommand(), vmmCommand(), attackCommand(), demoCommand()},
	}
	program.Prepare(app)
	return app
}
