package trial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// Whatever a guest sends as Evidence gets a verdict, be it longer than
// anything; what the caller got wrong gets none.
func TestJudge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "evidence")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", evidence.MaxBytes+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	mistake := func(*evidence.Parsed) (verifier.Verifier, error) {
		return nil, face.Usagef("--this: %w", &verifier.Error{Rule: verifier.Rule{Rule: "mine"}})
	}
	for name, x := range map[string]struct {
		path, rule string
		status     int
	}{
		"too long": {path, "evidence_format", face.Denied},
		"missing":  {path + "x", "", face.Failed},
		"usage":    {written(t, make([]byte, snp.ReportBytes)), "", face.Misused},
	} {
		app := &cli.App{Action: func(c *cli.Context) error {
			r, err := Trial{TEE: kbs.TDX, Prepare: mistake}.Judge(c, x.path)
			if err == nil {
				if f := r.Failed(); r.TEE != kbs.TDX || len(f) != 1 || f[0].Rule != x.rule {
					t.Errorf("%s: %+v", name, r)
				}
				err = Verdict(r)
			}
			if face.Status(err) != x.status {
				t.Errorf("%s: %v, expected status %d", name, err, x.status)
			}
			return nil
		}}
		if err := app.Run([]string{"p"}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVerdict: the first next step that a failed rule knows is the hint.
func TestVerdict(t *testing.T) {
	r := verifier.AttestationResult{Rules: []verifier.Rule{{Rule: "a", Pass: true}, {Rule: "b"}, {Rule: "c", Hint: "do that"}}}
	if err := Verdict(r); face.Status(err) != face.Denied || hint.Of(err) != "do that" || err.Error() != "evidence refused by rule b, c" {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
	r.Result = verifier.Affirming
	if err := Verdict(r); err != nil {
		t.Error(err)
	}
}

func written(t *testing.T, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
