// Command ccrun builds, registers, launches and inspects confidential
// workloads. Under the name krun it is the OCI runtime wrapper.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/containers/storage/pkg/reexec"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload"
)

func main() {
	if reexec.Init() { // containers/storage unpacks layers in a child of ours
		return
	}
	if isRuntime(os.Args[0]) {
		os.Exit(runtimeMain(os.Args))
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(workload.MemoryTargetBytes)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	app := newApp()
	code := report(app.RunContext(ctx, intersperse(app, os.Args)))
	stop()
	os.Exit(code)
}

func newApp() *cli.App {
	app := &cli.App{
		Name:                 "ccrun",
		Usage:                "build, register and run confidential workloads with Podman and krun",
		Version:              version(),
		EnableBashCompletion: true,
		HideVersion:          true,
		Suggest:              true,
		OnUsageError:         usageError,
		ExitErrHandler:       func(*cli.Context, error) {}, // main alone exits
		Flags:                globalFlags(),
		Before:               setUpLogging,
		Action:               noCommand,
		Commands: []*cli.Command{
			buildCommand(), convertCommand(), verifyImageCommand(), measureCommand(), inspectCommand(), registerCommand(),
			workloadCommand(), resourceCommand(), runCommand(), verifyCommand(), explainCommand(),
			certsCommand(), firmwareCommand(), quadletCommand(), doctorCommand(),
			completionCommand(), versionCommand(),
		},
	}
	inherit(app.Commands)
	return app
}

// inherit gives every command what the app has and cli does not pass on: the
// global flags in either place, and usage errors in our form.
func inherit(commands []*cli.Command) {
	for _, c := range commands {
		if c.OnUsageError == nil {
			c.OnUsageError = usageError
		}
		c.Flags = append(c.Flags, globalFlags()...)
		if c.Before == nil {
			c.Before = setUpLogging
		}
		if len(c.Subcommands) > 0 && c.Action == nil {
			c.Action = noCommand
		}
		inherit(c.Subcommands)
	}
}

// intersperse lets flags follow arguments, but not those after run's IMAGE.
func intersperse(app *cli.App, args []string) []string { return face.Intersperse(app, args, "run") }
