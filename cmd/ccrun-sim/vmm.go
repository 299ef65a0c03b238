package main

import (
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/sim"
)

func vmmCommand() *cli.Command {
	return &cli.Command{
		Name:   "vmm",
		Usage:  "boot a workload image; krun-sim starts it in the container",
		Hidden: true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Required: true, Usage: "`FILE` written by " + sim.RuntimeName},
			&cli.DurationFlag{Name: "stop-timeout", Value: 10 * time.Second, Usage: "kill the VM this long after the first SIGTERM"},
		},
		Action: func(c *cli.Context) error {
			if err := face.NoArgs(c); err != nil {
				return err
			}
			signals := machine.CatchSignals()
			code, err := runVMM(c, signals)
			if err != nil {
				program.Report(os.Stderr, err)
			}
			return face.Silent(code)
		},
	}
}

func runVMM(c *cli.Context, signals <-chan os.Signal) (int, error) {
	config, err := sim.ReadConfig(c.String("config"))
	if err != nil {
		return machine.ExitFailure, err
	}
	v := sim.VMM{Config: config, Log: program.Log(c).With("program", program.Name), StopTimeout: c.Duration("stop-timeout")}
	return v.Run(signals)
}
