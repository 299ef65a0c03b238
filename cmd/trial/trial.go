// Package trial appraises Evidence on a command line, as the server would and
// changing nothing: what `ccrun verify` and `attest-server policy test` share.
package trial

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// Trial is what a command brings along for the appraisal.
type Trial struct {
	// TEE is the result's where the Evidence is too broken to tell; or "".
	TEE kbs.TEE
	// At is the time to verify as of.
	At time.Time
	// Prepare adds to the Evidence what it came without, and returns who is to
	// verify it.
	Prepare func(*evidence.Parsed) (verifier.Verifier, error)
	// Appraise says whether authentic Claims are acceptable.
	Appraise func(*verifier.Claims) (verifier.AttestationResult, error)
}

// Judge appraises the Evidence in the file path. A refusal by the verifier is
// a result like any other.
func (t Trial) Judge(c *cli.Context, path string) (verifier.AttestationResult, error) {
	result, err := t.judge(c, path)
	var refused *verifier.Error
	if errors.As(err, &refused) && !errors.Is(err, hint.ErrUsage) {
		return refused.Result(cmp.Or(result.TEE, t.TEE)), nil
	}
	return result, err
}

// judge returns as much of the result as there is.
func (t Trial) judge(c *cli.Context, path string) (verifier.AttestationResult, error) {
	var none verifier.AttestationResult
	b, err := Read(c, "evidence", "evidence_format", path, evidence.MaxBytes)
	if err != nil {
		return none, err
	}
	parsed, err := evidence.Parse(b)
	if err != nil {
		return none, err
	}
	none.TEE = parsed.Evidence.TEE
	v, err := t.Prepare(parsed)
	if err != nil {
		return none, err
	}
	none.TEE = parsed.Evidence.TEE // which Prepare may know better
	claims, err := parsed.Verify(c.Context, v, t.At)
	if err != nil {
		return none, err
	}
	return t.Appraise(claims)
}

// Read reads the file path, part of the Evidence: what. That it is longer than
// limit is no failure to read, for a hostile guest may have sent it: rule
// refuses it.
func Read(c *cli.Context, what, rule, path string, limit int64) ([]byte, error) {
	b, err := face.Read(c, path, limit)
	if errors.Is(err, bounded.ErrTooLarge) {
		return nil, &verifier.Error{Rule: verifier.Rule{
			Rule: rule, Expected: fmt.Sprintf("%s of at most %d bytes", what, limit), Got: "more bytes",
			Hint: "give the evidence as the TEE's driver or a CoCo attester wrote it",
		}}
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	return b, nil
}

// Flags are those that ExpectationOf reads; without is what holds without
// --report-data, for its help.
func Flags(without string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "at", Usage: "verify as of `TIME` (RFC 3339) instead of now"},
		&cli.StringFlag{Name: "report-data", Usage: "expected REPORT_DATA, `HEX` of up to 64 bytes, " + without},
		&cli.StringFlag{Name: "advisories", Usage: "signed table of firmware advisories in `FILE` (default: the one built in)"},
		&cli.StringFlag{Name: "advisory-key", Usage: "`KEY` that must have signed --advisories, as `attest-server advisories keygen` printed it"},
		AllowFlag(),
	}
}

// ExpectationOf reads what this one attestation must be bound to. That there
// is no --report-data is no mistake of usage: its rule fails, with a reason.
func ExpectationOf(c *cli.Context) (verifier.Expectation, error) {
	want := verifier.Expectation{At: time.Now()}
	var err error
	if want.Advisories, err = Advisories(c); err != nil {
		return want, err
	}
	if s := c.String("at"); c.IsSet("at") {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return want, face.Usagef("--at %q: expected a time such as 2026-01-31T12:00:00Z", s)
		}
		want.At = at
	}
	data, err := hex.DecodeString(c.String("report-data"))
	if err != nil || len(data) > len(want.ReportData) {
		return want, face.Usagef("--report-data: expected up to %d hex digits", 2*len(want.ReportData))
	}
	copy(want.ReportData[:], data)
	return want, nil
}

// Verdict is nil if result affirms, and otherwise an error with the status of
// what is denied, the rules that failed, and what to do about the first.
func Verdict(result verifier.AttestationResult) error {
	if result.OK() {
		return nil
	}
	var rules []string
	next := ""
	for _, r := range result.Failed() {
		rules = append(rules, r.Rule)
		next = cmp.Or(next, r.Hint)
	}
	err := fmt.Errorf("evidence refused by rule %s", strings.Join(rules, ", "))
	return hint.With(face.WithStatus(face.Denied, err), "%s", next)
}
