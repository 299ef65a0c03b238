package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload"
)

// TestReplaceFlag: --replace takes a date after '=' and never an argument.
func TestReplaceFlag(t *testing.T) {
	for line, want := range map[string]string{
		"build --workload-id shop SRC DEST":                                "not",
		"build --workload-id shop --replace SRC DEST":                      "30 days",
		"build SRC --replace DEST --workload-id shop":                      "30 days",
		"build --workload-id shop --replace=now SRC DEST":                  "at once",
		"build --workload-id shop --replace=2037-01-31T00:00:00Z SRC DEST": "2037-01-31T00:00:00Z",
		"build --workload-id shop --replace=soon SRC DEST":                 "refused",
		"build --workload-id shop --replace= SRC DEST":                     "refused",
		"build --replace SRC DEST":                                         "refused",
		"build --replace --workload-id shop --no-register SRC DEST":        "refused",
	} {
		got := ""
		app := newApp()
		app.Writer, app.ErrWriter = io.Discard, io.Discard
		for _, c := range app.Commands {
			if c.Name == "build" {
				c.Action = func(c *cli.Context) error {
					o := &workload.Options{WorkloadID: c.String("workload-id")}
					err := setReplace(c, o)
					switch r := o.Replace; {
					case c.Args().Len() != 2:
						got = "arguments " + strings.Join(c.Args().Slice(), " ")
					case face.Status(err) == face.Misused:
						got = "refused"
					case err != nil:
						got = err.Error()
					case r == nil:
						got = "not"
					case r.AtOnce:
						got = "at once"
					case r.Until != nil:
						got = r.Until.Format(time.RFC3339)
					default:
						got = "30 days"
					}
					return nil
				}
			}
		}
		if err := app.Run(face.Intersperse(app, append([]string{"ccrun"}, strings.Fields(line)...))); err != nil || got != want {
			t.Errorf("%s: %q, %v, expected %q", line, got, err, want)
		}
	}
}
