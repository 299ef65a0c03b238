package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func workloadCommand() *cli.Command {
	return &cli.Command{Name: "workload", Action: func(*cli.Context) error { return errors.New("workload: not written yet") }}
}
