package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
)

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

// versions is the JSON of `ccrun version`.
type versions struct {
	Version   string `json:"version"`
	GoVersion string `json:"go_version"`
	Platform  string `json:"platform"`
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:        "version",
		Usage:       "print the version of ccrun and of what it was built with",
		Description: "Example:\n   ccrun version --format json",
		Flags:       []cli.Flag{face.FormatFlag()},
		Action: func(c *cli.Context) error {
			v := versions{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return face.Print(c, v, func(w io.Writer, _ versions) error {
				_, err := fmt.Fprintf(w, "ccrun %s (%s, %s)\n", v.Version, v.GoVersion, v.Platform)
				return err
			})
		},
	}
}
