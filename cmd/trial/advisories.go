package trial

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// allowFlag is the name of AllowFlag's.
const allowFlag = "allow-advisory"

// AllowFlag accepts firmware that is known to be broken.
func AllowFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: allowFlag, Usage: "accept firmware with this `ADVISORY` open: ID, ID=YYYY-MM-DD for until the end of that day, or all; may be repeated"}
}

// Allow adds what AllowFlag says to the rules of ref, whose TEE is known.
func Allow(c *cli.Context, ref kbs.ReferenceValues) (kbs.ReferenceValues, error) {
	list := c.StringSlice(allowFlag)
	if len(list) == 0 {
		return ref, nil
	}
	if ref.TEE == kbs.TDX {
		var rules kbs.TDXRules
		if ref.TDX != nil {
			rules = *ref.TDX
		}
		rules.AllowAdvisories = append(rules.AllowAdvisories[:len(rules.AllowAdvisories):len(rules.AllowAdvisories)], list...)
		ref.TDX = &rules
		return ref, misused(verifier.CheckTDXRules(&kbs.TDXRules{AllowAdvisories: list}))
	}
	var rules kbs.SNPRules
	if ref.SNP != nil {
		rules = *ref.SNP
	}
	rules.AllowAdvisories = append(rules.AllowAdvisories[:len(rules.AllowAdvisories):len(rules.AllowAdvisories)], list...)
	ref.SNP = &rules
	return ref, misused(verifier.CheckSNPRules(&kbs.SNPRules{AllowAdvisories: list}))
}

func misused(err error) error {
	if err == nil {
		return nil
	}
	text := strings.TrimPrefix(err.Error(), "allow_advisories: ")
	return face.WithStatus(face.Misused, fmt.Errorf("--%s: %s", allowFlag, text))
}

// Advisories is the table that --advisories and --advisory-key name, or the one
// built in.
func Advisories(c *cli.Context) (*advisory.Table, error) {
	path, key := c.String("advisories"), c.String("advisory-key")
	if (path == "") != (key == "") {
		return nil, hint.With(face.Usagef("--advisories without --advisory-key, or the other way round"), "a table counts for as much as whoever signed it: give both")
	}
	if path == "" {
		return advisory.Builtin()
	}
	return ReadAdvisories(c, path, key, time.Now())
}

// ReadAdvisories reads a signed table, which must not be older than the one
// that is built in.
func ReadAdvisories(c *cli.Context, path, key string, now time.Time) (*advisory.Table, error) {
	b, err := face.Read(c, path, advisory.MaxBytes)
	if err != nil {
		return nil, fmt.Errorf("reading advisories: %w", err)
	}
	own, err := advisory.Builtin()
	if err != nil {
		return nil, err
	}
	t, err := advisory.Open(b, key, now)
	if err == nil {
		err = t.Mark().Follows(own.Mark())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}
