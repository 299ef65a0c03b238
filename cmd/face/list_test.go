package face

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

type row struct {
	WorkloadID string `json:"workload_id"`
	N          int    `json:"n"`
}

// TestList: a template is for each row, as with podman, unless it ranges over the
// list; "table" puts a heading above.
func TestList(t *testing.T) {
	rows := []row{{"bakery", 1}, {"shop", 22}}
	act := func(c *cli.Context) error {
		return List(c, rows, func(r row) string { return r.WorkloadID }, func(w io.Writer, list []row) error {
			_, err := fmt.Fprintln(w, "PLAIN", len(list))
			return err
		})
	}
	for format, want := range map[string]string{
		"":                                    "PLAIN 2\n",
		"table":                               "PLAIN 2\n",
		"{{.WorkloadID}}":                     "bakery\nshop\n",
		`{{.WorkloadID}}\t{{.N}}`:             "bakery\t1\nshop\t22\n",
		`{{.WorkloadID}}{{"\n"}}`:             "bakery\nshop\n",
		`table {{.WorkloadID}}\t{{.N}}`:       "WORKLOAD ID  N\nbakery       1\nshop         22\n",
		"table {{.N}} {{.WorkloadID}}":        "N WORKLOAD ID\n1 bakery\n22 shop\n",
		"{{json .}}":                          "{\"workload_id\":\"bakery\",\"n\":1}\n{\"workload_id\":\"shop\",\"n\":22}\n",
		`{{range .}}{{.WorkloadID}},{{end}}`:  "bakery,shop,\n",
		"{{len .}}":                           "2\n",
		"{{(index . 1).WorkloadID}}":          "shop\n",
		"{{if .}}some{{end}}":                 "some\n",
		"{{range $i, $x := .}}{{$i}}{{end}}x": "01x\n",
	} {
		if stdout, stderr, status := run(t, Program{Name: "p"}, act, "top", "sub", "--format", format); status != 0 || stdout != want {
			t.Errorf("%q: status %d, %q, expected %q; %s", format, status, stdout, want, stderr)
		}
	}
	if stdout, _, status := run(t, Program{Name: "p"}, act, "top", "sub", "-q"); status != 0 || stdout != "bakery\nshop\n" {
		t.Errorf("-q: status %d, %q", status, stdout)
	}
	for _, format := range []string{"{{.Nope}}", "{{range .}}{{.Nope}}{{end}}", "table {{.Nope}}"} {
		_, stderr, status := run(t, Program{Name: "p"}, act, "top", "sub", "--format", format)
		if status != Misused || !strings.Contains(stderr, "no field Nope") || !strings.Contains(stderr, "hint: fields are WorkloadID, N") || strings.Contains(stderr, "face.row") {
			t.Errorf("%s: status %d, %s", format, status, stderr)
		}
	}
	if _, stderr, status := run(t, Program{Name: "p"}, act, "top", "sub", "--format", "yaml"); status != Misused || !strings.Contains(stderr, "--format json") {
		t.Errorf("yaml: status %d, %s", status, stderr)
	}
	rows = nil
	for format, want := range map[string]string{"json": "[]\n", "{{.N}}": "", "table {{.N}}": "N\n"} {
		if stdout, _, status := run(t, Program{Name: "p"}, act, "top", "sub", "--format", format); status != 0 || stdout != want {
			t.Errorf("%q of none: status %d, %q", format, status, stdout)
		}
	}
}
