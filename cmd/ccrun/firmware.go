package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func firmwareCommand() *cli.Command {
	return &cli.Command{Name: "firmware", Action: func(*cli.Context) error { return errors.New("firmware: not written yet") }}
}
