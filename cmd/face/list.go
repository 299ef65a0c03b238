package face

import (
	"bytes"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/urfave/cli/v2"
)

// ListFormatFlag is the --format of commands that print a list.
func ListFormatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "`FORMAT`: json, a Go template for each row, or \"table TEMPLATE\" with a heading; a template that ranges over the list gets all of it"}
}

// List prints rows as Podman prints lists: with -q their names alone, as --format
// says, or as plain does.
func List[T any](c *cli.Context, rows []T, name func(T) string, plain func(io.Writer, []T) error) error {
	if c.Bool("quiet") {
		return Names(c, rows, name)
	}
	return Rows(c, rows, plain)
}

// Rows is List of what has no names.
func Rows[T any](c *cli.Context, rows []T, plain func(io.Writer, []T) error) error {
	if rows == nil {
		rows = []T{} // [] in JSON, not null
	}
	format := c.String("format")
	switch {
	case format == "table":
		return plain(c.App.Writer, rows)
	case format == "" || format == "json":
		return Print(c, rows, plain)
	}
	t, err := templateOf(c)
	if err != nil {
		return err
	}
	if ofAll(t.Root) {
		return Print(c, rows, plain)
	}
	return eachRow(c.App.Writer, t, rows)
}

// eachRow prints a line for each of rows.
func eachRow[T any](w io.Writer, t *template.Template, rows []T) error {
	var lines bytes.Buffer
	table := cutTable(t.Root)
	if table {
		fmt.Fprintln(&lines, heading(t.Root))
	}
	for _, row := range rows {
		if err := t.Execute(&lines, row); err != nil {
			return formatError(err, reflect.TypeFor[T]())
		}
		if !bytes.HasSuffix(lines.Bytes(), []byte("\n")) {
			lines.WriteByte('\n')
		}
	}
	if !table {
		_, err := w.Write(lines.Bytes())
		return err
	}
	aligned := Table(w)
	_, _ = aligned.Write(lines.Bytes())
	return aligned.Flush()
}

// cutTable takes the word off that asks for a heading, if it is there.
func cutTable(root *parse.ListNode) bool {
	text, ok := root.Nodes[0].(*parse.TextNode)
	if !ok {
		return false
	}
	text.Text, ok = bytes.CutPrefix(text.Text, []byte("table "))
	return ok
}

// ofAll says whether a template is for the list as a whole: whether it ranges over
// it, counts it or takes one of it.
func ofAll(root *parse.ListNode) bool {
	for _, n := range root.Nodes {
		switch n := n.(type) {
		case *parse.RangeNode:
			if takesAll(n.Pipe) {
				return true
			}
		case *parse.IfNode:
			if takesAll(n.Pipe) {
				return true
			}
		case *parse.ActionNode:
			if counts.MatchString(n.String()) {
				return true
			}
		}
	}
	return false
}

// counts is what makes sense of a list alone.
var counts = regexp.MustCompile(`\b(len|index|slice) \.[ )}]`)

func takesAll(pipe *parse.PipeNode) bool {
	for _, command := range pipe.Cmds {
		for _, arg := range command.Args {
			if arg.Type() == parse.NodeDot {
				return true
			}
		}
	}
	return false
}

var fieldName = regexp.MustCompile(`\.(\w+)`)

var capital = regexp.MustCompile(`([a-z])([A-Z])`)

// heading is the line over a table: the names of fields.
func heading(root *parse.ListNode) string {
	var b strings.Builder
	for _, n := range root.Nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			b.Write(n.Text)
		case *parse.ActionNode:
			if fields := fieldName.FindAllStringSubmatch(n.String(), -1); fields != nil {
				b.WriteString(strings.ToUpper(capital.ReplaceAllString(fields[len(fields)-1][1], "$1 $2")))
			}
		}
	}
	return b.String()
}

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
