package face

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"text/tabwriter"
	"text/template"
	"text/template/parse"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/hint"
)

// FormatFlag is the --format of every command that prints data.
func FormatFlag() cli.Flag {
	return &cli.StringFlag{Name: "format", Usage: "`FORMAT`: json, or a Go template"}
}

func parseFormat(c *cli.Context) (*template.Template, error) {
	t, err := template.New("format").Funcs(template.FuncMap{"json": inline}).Parse(c.String("format"))
	if err != nil {
		return nil, Usagef("--format: %w", err)
	}
	if t.Tree != nil { // else it is empty
		for _, n := range t.Root.Nodes {
			if text, ok := n.(*parse.TextNode); ok {
				text.Text = escapes.ReplaceAllFunc(text.Text, unescape)
			}
		}
	}
	return t, nil
}

// templateOf is --format where it is neither empty nor json.
func templateOf(c *cli.Context) (*template.Template, error) {
	if s := c.String("format"); !strings.Contains(s, "{{") {
		return nil, hint.With(Usagef("--format %q: expected json or a Go template", s), "say --format json, or one such as --format '{{json .}}'")
	}
	return parseFormat(c)
}

// escapes are what shells leave as it is between apostrophes.
var escapes = regexp.MustCompile(`\\[tn]`)

func unescape(b []byte) []byte {
	if b[1] == 't' {
		return []byte("\t")
	}
	return []byte("\n")
}

// inline is JSON on one line.
func inline(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
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
	t, err := templateOf(c)
	if err != nil {
		return err
	}
	if err := t.Execute(w, v); err != nil {
		return formatError(err, reflect.TypeFor[T]())
	}
	_, err = fmt.Fprintln(w)
	return err
}

var noField = regexp.MustCompile(`can't evaluate field (\w+) in type`)

// formatError says of a field that is not there which there are. Go's own words
// name types, which are nobody's business.
func formatError(err error, of reflect.Type) error {
	m := noField.FindStringSubmatch(err.Error())
	if m == nil {
		return Usagef("--format: %w", err)
	}
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct {
		return Usagef("--format: there is no field %s", m[1])
	}
	var names []string
	for _, f := range reflect.VisibleFields(of) {
		if f.IsExported() && !f.Anonymous {
			names = append(names, f.Name)
		}
	}
	return hint.With(Usagef("--format: there is no field %s", m[1]), "fields are %s; --format json shows what is in them", strings.Join(names, ", "))
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
