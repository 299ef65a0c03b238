package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func explainCommand() *cli.Command {
	return &cli.Command{Name: "explain", Action: func(*cli.Context) error { return errors.New("explain: not written yet") }}
}
