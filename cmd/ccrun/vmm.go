package main

import (
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	vmm "github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/qemu"
)

func vmmCommand() *cli.Command {
	return &cli.Command{
		Name:        "vmm",
		Usage:       "run a workload's machine of QEMU's; krun starts it in the container",
		Description: "Example:\n   ccrun vmm --config " + vmm.InsideConfig,
		Hidden:      true,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Required: true, Usage: "`FILE` written by krun"},
			&cli.DurationFlag{Name: "stop-timeout", Value: 10 * time.Second, Usage: "kill the VM this long after the first SIGTERM"},
		},
		Action: func(c *cli.Context) error {
			if err := face.NoArgs(c); err != nil {
				return err
			}
			signals := vmm.CatchSignals()
			code, err := runVMM(c, signals)
			if err != nil {
				program.Report(os.Stderr, err)
			}
			return face.Silent(code)
		},
	}
}

func runVMM(c *cli.Context, signals <-chan os.Signal) (int, error) {
	config, err := qemu.ReadConfig(c.String("config"))
	if err != nil {
		return vmm.ExitFailure, err
	}
	v := qemu.VMM{Config: config, Log: program.Log(c), StopTimeout: c.Duration("stop-timeout")}
	return v.Run(signals)
}
