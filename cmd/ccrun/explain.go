package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func explainCommand() *cli.Command {
	return &cli.Command{
		Name:      "explain",
		Usage:     "say why the server granted or denied a session its key",
		ArgsUsage: "SESSION",
		Description: `SESSION is the number that a denied guest prints. Every rule is shown with
what was expected and what the guest had, the failed ones with the next step.

With --evidence what a denied guest showed is written to stdout as it came, for
` + "`ccrun verify` and `ccrun measure --against`" + `; only who owns its workload gets that.

Examples:
   ccrun explain 3k9m0w7f2c5d8x1a --server https://kbs.example:8443 --ca ca.pem --token-file token
   ccrun explain 3k9m0w7f2c5d8x1a --evidence >report.bin`,
		Flags: append(serverFlags(), face.FormatFlag(),
			&cli.BoolFlag{Name: "evidence", Usage: "write the raw Evidence of a denied guest, an SNP report or TD quote, and nothing else"}),
		Action: runExplain,
	}
}

func runExplain(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "SESSION"); err != nil {
		return err
	}
	client, err := admin(c)
	if err != nil {
		return err
	}
	if c.Bool("evidence") {
		return writeEvidence(c, client)
	}
	rec, err := client.Session(c.Context, c.Args().First())
	if err != nil {
		return fmt.Errorf("explaining session %s: %w", c.Args().First(), err)
	}
	return face.Print(c, rec, printSession)
}

func writeEvidence(c *cli.Context, client *kbs.AdminClient) error {
	if c.IsSet("format") {
		return face.Usagef("--evidence and --format: the Evidence is written as it came")
	}
	e, err := client.SessionEvidence(c.Context, c.Args().First())
	if err != nil {
		return hint.With(fmt.Errorf("reading the evidence of session %s: %w", c.Args().First(), err),
			"evidence is kept of denied guests, the latest 16 of each workload, for who owns the workload")
	}
	_, err = c.App.Writer.Write(e.Evidence)
	return err
}

func printSession(w io.Writer, r *kbs.SessionRecord) error {
	verdict := "denied"
	switch {
	case !r.Granted && r.Result.Confirmed():
		verdict = "nothing released, the VM has confirmed that its disk opened"
	case !r.Granted && r.Result.Result == kbs.Undecided:
		verdict = "not decided, the server lacks what the failed rule names; the guest asks again"
	case r.Granted:
		verdict = fmt.Sprintf("granted, key released %d times", r.Releases)
	}
	fmt.Fprintf(w, "session %s: %s\nworkload %s (%s) at %s from %s\n\n", r.Session, verdict,
		face.Printable(r.WorkloadID), face.Printable(string(r.Result.TEE)), r.At.UTC().Format(time.RFC3339), face.Printable(cmp.Or(r.Peer, "-")))
	if r.Refused != "" {
		fmt.Fprintf(w, "the guest refused to go on: %s\n\n", face.Printable(r.Refused))
	}
	if err := face.Rules(w, r.Result.Rules); err != nil {
		return err
	}
	if g := r.Given; g != nil {
		fmt.Fprintf(w, "\nbesides its key it got %s\n", face.Printable(givenText(g)))
	}
	for _, v := range r.Volumes {
		fmt.Fprintf(w, "\nREFUSED volume %s: %s\n", face.Printable(v.Volume), face.Printable(v.Why))
		fmt.Fprintf(w, "   bring the volume file back as it was left, or lose what is newer: `ccrun volume accept-rollback %s %s`\n", face.Printable(r.WorkloadID), face.Printable(v.Volume))
	}
	if err := printChain(w, r.Result.Claims); err != nil {
		return err
	}
	return printCheckpoint(w, r.Checkpoint)
}

// givenText says it as a list.
func givenText(g *kbs.Given) string {
	var all []string
	if g.Secrets == 1 {
		all = append(all, "1 secret")
	} else if g.Secrets > 0 {
		all = append(all, fmt.Sprintf("%d secrets", g.Secrets))
	}
	if g.Config > 0 {
		all = append(all, fmt.Sprintf("configuration version %d", g.Config))
	}
	if len(g.Volumes) > 0 {
		all = append(all, "the keys of volumes "+strings.Join(g.Volumes, " "))
	}
	return strings.Join(all, ", ")
}

// printCheckpoint shows what the server's witnesses knew of its audit log, as
// the server says; `ccrun monitor` checks it.
func printCheckpoint(w io.Writer, note string) error {
	if note == "" {
		return nil
	}
	c, err := checkpoint.Peek([]byte(note))
	if err != nil {
		return fmt.Errorf("reading the session's checkpoint: %w", err)
	}
	_, signatures, _ := checkpoint.Split([]byte(note))
	var by []string
	for _, line := range strings.Split(strings.TrimSpace(signatures), "\n") {
		if name, _, ok := strings.Cut(strings.TrimPrefix(line, "— "), " "); ok && name != c.Origin {
			by = append(by, face.Printable(name))
		}
	}
	_, err = fmt.Fprintf(w, "\naudit log %s then had %d entries, witnessed%s\n", face.Printable(c.Origin), c.Size, strings.TrimRight(" by "+strings.Join(by, ", "), "by "))
	return err
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
	t := face.Table(w)
	fmt.Fprintln(t, "\nCHAIN\tSHA-256\tUNTIL")
	for _, x := range c.Chain {
		fmt.Fprintf(t, "%s\t%s\t%s\n", face.Printable(x.Subject), face.Short(x.SHA256), x.NotAfter.UTC().Format(time.DateOnly))
	}
	return t.Flush()
}
