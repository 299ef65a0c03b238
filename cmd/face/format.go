package face

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"text/template"

	"github.com/urfave/cli/v2"
)

// FormatFlag is the --format of every command that prints data.
func FormatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "`FORMAT`: json, or a Go template"}
}

func parseFormat(c *cli.Context) (*template.Template, error) {
	t, err := template.New("format").Parse(c.String("format"))
	if err != nil {
		return nil, Usagef("--format: %w", err)
	}
	return t, nil
}

// Print prints v as --format says; without it, as plain does.
func Print[T any](c *cli.Context, v T, plain func(io.Writer, T) error) error {
	w := c.App.Writer
	switch c.String("format") {
	case "":
		return plain(w, v)
	case "json":
		return JSON(w, v)
	}
	t, err := parseFormat(c)
	if err != nil {
		return err
	}
	if err := t.Execute(w, v); err != nil {
		return Usagef("--format: %w", err)
	}
	_, err = fmt.Fprintln(w)
	return err
}

// JSON prints v as --format json does.
func JSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Table aligns what is written to it, columns parted by tabs. Flush it.
func Table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }
