package main

import (
	"os"
	"time"

	"github.com/ccrun/ccrun/krun/sim"
	"github.com/urfave/cli/v2"
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
			if err := noArgs(c); err != nil {
				return err
			}
			signals := sim.CatchSignals()
			code, err := runVMM(c, signals)
			if err != nil {
				printError(os.Stderr, "ccrun-sim", err)
			}
			return silentExit(code)
		},
	}
}

func runVMM(c *cli.Context, signals <-chan os.Signal) (int, error) {
	config, err := sim.ReadConfig(c.String("config"))
	if err != nil {
		return sim.ExitFailure, err
	}
	v := sim.VMM{Config: config, Log: newLogger(os.Stderr, "ccrun-sim"), StopTimeout: c.Duration("stop-timeout")}
	return v.Run(signals)
}
