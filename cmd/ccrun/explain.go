package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say why the server granted or denied a session its key",
		ArgsUsage: "SESSION",
		Description: `SESSION is the number that a denied guest prints. Every rule is shown with
what was expected and what the guest had, the failed ones with the next step.

Example:
   ccrun explain 3k9m0w7f2c5d8x1a --server https://kbs.example:8443 --ca ca.pem --token-file token`,
		Flags:  append(serverFlags(), formatFlag()),
		Action: runExplain,
	}
}

func runExplain(c *cli.Context) error {
	if err := args(c, 1, 1, "SESSION"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	rec, err := client.Session(c.Context, c.Args().First())
	if err != nil {
		return fmt.Errorf("explaining session %s: %w", c.Args().First(), err)
	}
	return printFormatted(c, rec, func(w io.Writer, _ any) error { return printSession(w, rec) })
}

func printSession(w io.Writer, r *kbs.SessionRecord) error {
	verdict := "denied"
	if r.Granted {
		verdict = fmt.Sprintf("granted, key released %d times", r.Releases)
	}
	fmt.Fprintf(w, "session %s: %s\nworkload %s (%s) at %s from %s\n\n", r.Session, verdict,
		printable(r.WorkloadID), printable(string(r.Result.TEE)), r.At.UTC().Format(time.RFC3339), printable(orDash(r.Peer)))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PASS\tRULE\tEXPECTED\tGOT")
	for _, x := range r.Result.Rules {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", passed(x.Pass), printable(x.Rule), short(x.Expected), short(x.Got))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range r.Result.Rules {
		if !x.Pass {
			printFailure(w, x)
		}
	}
	return printChain(w, r.Result.Claims)
}

func printFailure(w io.Writer, x kbs.Rule) {
	fmt.Fprintf(w, "\n%s failed\n  expected  %s\n  got       %s\n", printable(x.Rule), printable(x.Expected), printable(x.Got))
	if x.Level != "" {
		fmt.Fprintf(w, "  asked by  the policy of the %s\n", printable(x.Level))
	}
	if x.Hint != "" {
		fmt.Fprintf(w, "  hint      %s\n", printable(x.Hint))
	}
}

// printChain shows how the vendor's root vouches for the key that signed.
func printChain(w io.Writer, claims json.RawMessage) error {
	var c struct {
		Chain []struct {
			Subject  string    `json:"subject"`
			SHA256   string    `json:"sha256"`
			NotAfter time.Time `json:"not_after"`
		} `json:"chain"`
	}
	if len(claims) == 0 || json.Unmarshal(claims, &c) != nil || len(c.Chain) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nCHAIN\tSHA-256\tUNTIL")
	for _, x := range c.Chain {
		fmt.Fprintf(t, "%s\t%s\t%s\n", printable(x.Subject), short(x.SHA256), x.NotAfter.UTC().Format(time.DateOnly))
	}
	return t.Flush()
}

func passed(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

const shortLength = 32

// short cuts what would tear the table; failed rules are repeated in full.
func short(s string) string {
	s = printable(s)
	if utf8.RuneCountInString(s) <= shortLength {
		return s
	}
	return string([]rune(s)[:shortLength-1]) + "…"
}
