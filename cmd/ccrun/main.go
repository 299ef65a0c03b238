// Command ccrun builds, registers, launches and inspects confidential
// workloads. Under the name krun it is the OCI runtime wrapper.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"
)

func main() {
	if isRuntime(os.Args[0]) {
		os.Exit(runtimeMain(os.Args))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := report(newApp().RunContext(ctx, os.Args))
	stop()
	os.Exit(code)
}

func newApp() *cli.App {
	return &cli.App{
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
		Commands: []*cli.Command{
			buildCommand(), measureCommand(), inspectCommand(), registerCommand(),
			workloadCommand(), runCommand(), verifyCommand(), explainCommand(),
			firmwareCommand(), quadletCommand(), doctorCommand(),
			completionCommand(), versionCommand(),
		},
	}
}
