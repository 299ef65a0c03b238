package main

import (
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/argv"
)

// intersperse lets flags follow arguments, but not those after run's IMAGE.
func intersperse(app *cli.App, args []string) []string { return argv.Intersperse(app, args, "run") }
