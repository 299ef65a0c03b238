package face

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// run runs `p top sub`, of which act is the action, and returns what it
// printed and its exit status.
func run(t *testing.T, p Program, act cli.ActionFunc, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	app := &cli.App{Commands: []*cli.Command{{Name: "top", Subcommands: []*cli.Command{{Name: "sub", Usage: "act", Flags: []cli.Flag{FormatFlag()}, Action: act}}}}}
	p.Prepare(app)
	var out, errs bytes.Buffer
	app.Writer, app.ErrWriter = &out, &errs
	status = p.Run(t.Context(), app, append([]string{p.Name}, args...))
	return out.String(), errs.String(), status
}

// silent has a Hint that says nothing.
type silent struct{ err error }

func (s silent) Error() string { return s.err.Error() }
func (s silent) Unwrap() error { return s.err }
func (s silent) Hint() string  { return "" }

// Every error is told in one form. An error with an empty hint does not hide
// those of others, and a usage error sends to --help only if nothing says
// better.
func TestReport(t *testing.T) {
	known := hint.With(errors.New("it is so"), "do that")
	for name, x := range map[string]struct {
		err    error
		want   string // after "p: "
		status int
	}{
		"none":                         {nil, "", 0},
		"failure":                      {errors.New("it is so"), "it is so\n", Failed},
		"hint":                         {fmt.Errorf("doing: %w", known), "doing: it is so\np: hint: do that\n", Failed},
		"beside an empty hint":         {errors.Join(silent{errors.New("a")}, known), "a\nit is so\np: hint: do that\n", Failed},
		"below an empty hint":          {silent{known}, "it is so\np: hint: do that\n", Failed},
		"usage":                        {Usagef("no such %s", "thing"), "no such thing\np: hint: see `p top sub --help`\n", Misused},
		"usage of another package":     {hint.Usagef("no such thing"), "invalid options: no such thing\np: hint: see `p top sub --help`\n", Misused},
		"usage with a hint of its own": {Usagef("sub: %w", known), "sub: it is so\np: hint: do that\n", Misused},
		"denied":                       {WithStatus(Denied, known), "it is so\np: hint: do that\n", Denied},
		"usage under another status":   {WithStatus(125, Usagef("no")), "no\np: hint: see `p top sub --help`\n", 125},
		"silent":                       {Silent(7), "", 7},
	} {
		_, stderr, status := run(t, Program{Name: "p"}, func(*cli.Context) error { return x.err }, "top", "sub")
		if want := strings.TrimSuffix("p: "+x.want, "p: "); stderr != want || status != x.status {
			t.Errorf("%s: status %d, %q; expected %d, %q", name, status, stderr, x.status, want)
		}
	}
}

func TestUsage(t *testing.T) {
	act := func(c *cli.Context) error { return Args(c, 1, 1, "FILE") }
	for args, want := range map[string]string{
		"bogus":                   "p (toy): unknown command \"bogus\"\np (toy): hint: see `p --help`\n",
		"top bogus":               "p (toy): unknown command \"bogus\"\np (toy): hint: see `p top --help`\n",
		"top sub --bogus":         "p (toy): flag provided but not defined: -bogus\np (toy): hint: see `p top sub --help`\n",
		"top sub a b":             "p (toy): top sub: 2 arguments, expected FILE\np (toy): hint: see `p top sub --help`\n",
		"--log-level x top sub a": "p (toy): --log-level \"x\": expected debug, info, warn or error\np (toy): hint: see `p top sub --help`\n",
		"top sub a --format {{":   "p (toy): --format: template: format:1: unclosed action\np (toy): hint: see `p top sub --help`\n",
	} {
		if _, stderr, status := run(t, Program{Name: "p", Notice: "toy"}, act, strings.Fields(args)...); status != Misused || stderr != want {
			t.Errorf("%s: status %d, %s", args, status, stderr)
		}
	}
	_, stderr, status := run(t, Program{Name: "p"}, func(c *cli.Context) error { return NoArgs(c) }, "top", "sub", "x")
	if status != Misused || !strings.HasPrefix(stderr, "p: top sub: unexpected argument \"x\"\n") {
		t.Errorf("status %d, %s", status, stderr)
	}
	if stdout, _, status := run(t, Program{Name: "p", Notice: "toy"}, act, "top"); status != 0 || !strings.Contains(stdout, "act (toy)") {
		t.Errorf("status %d, help without notice:\n%s", status, stdout)
	}
}

// The log's flags are heard wherever they stand; -q is stronger.
func TestLevel(t *testing.T) {
	for args, want := range map[string]slog.Level{
		"top sub":                      slog.LevelWarn,
		"-q top sub":                   slog.LevelError,
		"top -q sub":                   slog.LevelError,
		"top sub -q --log-level debug": slog.LevelError,
		"--log-level debug top sub":    slog.LevelDebug,
		"--log-level debug top sub --log-level info": slog.LevelInfo,
	} {
		told := slog.Level(99)
		p := Program{Name: "p", Notice: "toy", Level: slog.LevelWarn, Started: func(l slog.Level) { told = l }}
		_, stderr, _ := run(t, p, func(c *cli.Context) error {
			p.Log(c).Warn("hear")
			p.Note(c, "done %s", "it")
			return nil
		}, strings.Fields(args)...)
		warned, noted := strings.Contains(stderr, "msg=hear notice=toy"), strings.Contains(stderr, "p (toy): done it\n")
		if told != want || warned != (want <= slog.LevelWarn) || noted != (want <= slog.LevelInfo) {
			t.Errorf("%s: level %s, expected %s; %s", args, told, want, stderr)
		}
	}
}

func TestPrint(t *testing.T) {
	act := func(c *cli.Context) error {
		return Print(c, map[string]string{"a": "<1>"}, func(w io.Writer, m map[string]string) error {
			_, err := fmt.Fprintln(w, len(m), "entry")
			return err
		})
	}
	for format, want := range map[string]string{"": "1 entry\n", "json": "{\n  \"a\": \"<1>\"\n}\n", "{{.a}}": "<1>\n"} {
		if stdout, stderr, status := run(t, Program{Name: "p"}, act, "top", "sub", "--format", format); status != 0 || stdout != want {
			t.Errorf("%q: status %d, %q %s", format, status, stdout, stderr)
		}
	}
	if _, _, status := run(t, Program{Name: "p"}, act, "top", "sub", "--format", "{{template \"none\"}}"); status != Misused {
		t.Errorf("a template that cannot be executed: status %d", status)
	}
}

// What is longer than it may be is refused, not cut, wherever it comes from.
func TestReadRefusesTooMuch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{path, "-"} {
		for limit, want := range map[int64]string{5: "12345", 4: ""} {
			app := &cli.App{Reader: strings.NewReader("12345"), Action: func(c *cli.Context) error {
				b, err := Read(c, from, limit)
				if string(b) != want || errors.Is(err, bounded.ErrTooLarge) != (want == "") {
					t.Errorf("%s, at most %d: %q, %v", from, limit, b, err)
				}
				return nil
			}}
			if err := app.Run([]string{"p"}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReadSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	for content, want := range map[string]string{
		"": "", "hunter2": "hunter2", "hunter2\n": "hunter2", "two\nlines\n": "two\nlines", " x ": " x ", strings.Repeat("x", maxSecret): strings.Repeat("x", maxSecret),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadSecretFile(path); err != nil || string(got.Reveal()) != want {
			t.Errorf("%.20q: %.20q, %v", content, got.Reveal(), err)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", maxSecret+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadSecretFile(path); !errors.Is(err, bounded.ErrTooLarge) || got.Len() != 0 {
		t.Errorf("a longer one: %d bytes, %v", got.Len(), err)
	}
}

func TestReadTokenFile(t *testing.T) {
	const good = "ccrun_0f1e2d3c4b5a_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	path := filepath.Join(t.TempDir(), "token")
	put := func(text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{good, good + "\n", good + "\r\n"} {
		put(text, 0o600)
		if got, err := ReadTokenFile(path); err != nil || string(got.Reveal()) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"", "\n", "hunter2", good[:60], good + "x", " " + good, good + "\n" + good, "-----BEGIN CERTIFICATE-----"} {
		put(text, 0o600)
		if _, err := ReadTokenFile(path); err == nil || !strings.Contains(err.Error(), "holds no token") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o602, 0o601} {
		put(good, mode)
		if _, err := ReadTokenFile(path); err == nil || !strings.Contains(hint.Of(err), "chmod 0600") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
}
