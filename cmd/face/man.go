package face

import (
	"io"

	"github.com/urfave/cli/v2"
)

// manCommand prints the program's manual page, for whoever packages it.
func manCommand(name string) *cli.Command {
	return &cli.Command{
		Name: "man", Hidden: true,
		Usage:       "print the manual page",
		Description: "Example:\n   " + name + " man --section 8 >" + name + ".8",
		Flags:       []cli.Flag{&cli.IntFlag{Name: "section", Value: 1, Usage: "`NUMBER` of the manual's section"}},
		Action: func(c *cli.Context) error {
			page, err := c.App.ToManWithSection(c.Int("section"))
			if err == nil {
				_, err = io.WriteString(c.App.Writer, page)
			}
			return err
		},
	}
}
