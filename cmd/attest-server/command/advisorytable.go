package command

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/cmd/trial"
	"github.com/ccrun/ccrun/hint"
)

// Fields of [policy] that are no rules.
const (
	advisoriesField  = "advisories"
	advisoryKeyField = "advisory_key"
)

// advisoriesOf is the table that [policy], section, names, or the one built in.
func advisoriesOf(c *cli.Context, section map[string]any, now time.Time) (*advisory.Table, error) {
	path, err := textOf(section, advisoriesField)
	if err != nil {
		return nil, err
	}
	key, err := textOf(section, advisoryKeyField)
	switch {
	case err != nil:
		return nil, err
	case (path == "") != (key == ""):
		return nil, hint.With(face.Usagef("[policy]: advisories without advisory_key, or the other way round"), "a table counts for as much as whoever signed it: give both or neither")
	case path == "":
		return advisory.Builtin()
	}
	return trial.ReadAdvisories(c, path, key, now)
}

func textOf(section map[string]any, field string) (string, error) {
	v, there := section[field]
	if s, ok := v.(string); ok && s != "" {
		return s, nil
	}
	if there {
		return "", face.Usagef("[policy]: %s, expected a text that is not empty", field)
	}
	return "", nil
}
