package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func measureCommand() *cli.Command {
	return &cli.Command{Name: "measure", Action: func(*cli.Context) error { return errors.New("measure: not written yet") }}
}
