package main

import (
	"errors"

	"github.com/urfave/cli/v2"
)

func registerCommand() *cli.Command {
	return &cli.Command{Name: "register", Action: func(*cli.Context) error { return errors.New("register: not written yet") }}
}
