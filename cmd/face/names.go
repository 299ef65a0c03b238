package face

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

// Names prints the names of list alone, each on a line: what -q leaves of a
// listing, as with podman.
func Names[T any](c *cli.Context, list []T, name func(T) string) error {
	for _, x := range list {
		if _, err := fmt.Fprintln(c.App.Writer, Printable(name(x))); err != nil {
			return err
		}
	}
	return nil
}
