package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/cmd/face"
)

// notice is in every line that ccrun-sim logs and in every help text.
const notice = sample.Notice

// program is ccrun-sim as its users see it.
var program = face.Program{Name: "ccrun-sim", Notice: notice}

func rootFlag() cli.Flag {
	return &cli.StringFlag{Name: "sample-root", Value: sample.DefaultRoot, EnvVars: []string{"CCRUN_SIM_ROOT"},
		Usage: "`DIR` of the simulated platform: its keys and certificates"}
}

// now is the clock of commands; everything below main is handed the time.
func now() time.Time { return time.Now() }
