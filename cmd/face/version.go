package face

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// Version is the module's version, which Go takes from the tag, or the commit
// that the program was built from.
func Version() string {
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

// versions is the JSON of the command version.
type versions struct {
	Version   string `json:"version"`
	GoVersion string `json:"go_version"`
	Platform  string `json:"platform"`
}

func versionCommand(name string) *cli.Command {
	return &cli.Command{
		Name:        "version",
		Usage:       "print the version of " + name + " and of what it was built with",
		Description: "Example:\n   " + name + " version --format json",
		Flags:       []cli.Flag{FormatFlag()},
		Action: func(c *cli.Context) error {
			if err := NoArgs(c); err != nil {
				return err
			}
			v := versions{Version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return Print(c, v, func(w io.Writer, _ versions) error {
				_, err := fmt.Fprintf(w, "%s %s (%s, %s)\n", name, v.Version, v.GoVersion, v.Platform)
				return err
			})
		},
	}
}
