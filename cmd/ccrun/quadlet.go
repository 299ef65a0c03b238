package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func quadletCommand() *cli.Command {
	return &cli.Command{Name: "quadlet", Action: func(*cli.Context) error { return errors.New("quadlet: not written yet") }}
}
