// Command ccrun-sim simulates a TEE where there is none: it PROTECTS NOTHING.
// It is the attestation server with trust in the simulation, the simulated
// platform's tools, and, under the name krun-sim, the OCI runtime that boots
// workload images in QEMU.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ccrun/ccrun/cmd/attest-server/command"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/sim"
	"github.com/urfave/cli/v2"
)

func main() { os.Exit(run(os.Args)) }

// run is main with an exit status, for the scripts that test it.
func run(args []string) int {
	if len(args) > 0 && filepath.Base(args[0]) == sim.RuntimeName {
		return runtimeMain(args)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := newApp()
	return report(app.RunContext(ctx, face.Intersperse(app, args)))
}

func newApp() *cli.App {
	app := &cli.App{
		Name:  "ccrun-sim",
		Usage: notice,
		Description: "Runs ccrun's whole path on a machine without a TEE. The host can read and change\n" +
			"everything that runs in it: use it to learn and to test, never to protect anything.\n" +
			"Installed under the name " + sim.RuntimeName + " it is an OCI runtime:\n\n" +
			"   podman run --runtime /usr/local/bin/" + sim.RuntimeName + " IMAGE",
		EnableBashCompletion: true,
		HideVersion:          true,
		OnUsageError:         usageError,
		ExitErrHandler:       func(*cli.Context, error) {}, // main alone exits
		Flags:                command.LogFlags(),
		Before:               command.CheckLogFlags,
		Action:               noCommand,
		Commands:             []*cli.Command{serverCommand(), initCommand(), firmwareCommand(), evidenceCommand(), vmmCommand(), attackCommand(), demoCommand()},
	}
	prepare(app.Commands)
	command.Inherit(app.Commands)
	return app
}

// prepare puts the notice into every command's help, and usage errors into
// our form.
func prepare(commands []*cli.Command) {
	for _, c := range commands {
		if !strings.Contains(c.Usage, notice) {
			c.Usage += " (" + notice + ")"
		}
		if c.OnUsageError == nil {
			c.OnUsageError = usageError
		}
		if len(c.Subcommands) > 0 && c.Action == nil {
			c.Action = noCommand
		}
		prepare(c.Subcommands)
	}
}
