package command

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/cmd/trial"
	"github.com/ccrun/ccrun/secret"
)

func (p Program) advisoriesCommand() *cli.Command {
	table := []cli.Flag{
		&cli.StringFlag{Name: "advisories", Usage: "signed table in `FILE` (default: the configuration's, or the one built in)"},
		&cli.StringFlag{Name: "advisory-key", Usage: "`KEY` that must have signed --advisories"},
		configFlag(), face.FormatFlag(),
	}
	return &cli.Command{
		Name:        "advisories",
		Usage:       "show, check and sign the table of firmware known to be broken",
		Description: "Example:\n   " + p.Name + " advisories show",
		Subcommands: []*cli.Command{
			{Name: "show", Usage: "list advisories with the least firmware that each silicon needs", Flags: table, Action: showAdvisories,
				Description: "Example:\n   " + p.Name + " advisories show --config /etc/attest-server/attest-server.toml"},
			{Name: "verify", Usage: "say whether a signed table is good, and not older than the one built in", ArgsUsage: "FILE",
				Description: "Example:\n   " + p.Name + " advisories verify --advisory-key KEY advisories.note",
				Flags:       []cli.Flag{&cli.StringFlag{Name: "advisory-key", Required: true, Usage: "`KEY` that must have signed it"}}, Action: verifyAdvisories},
			{Name: "keygen", Usage: "make a key to sign tables with", ArgsUsage: "NAME KEYFILE",
				Description: "Prints the advisory_key for [policy]; the key to sign with goes to KEYFILE, for its owner's eyes.\n\nExample:\n   " + p.Name + " advisories keygen ops.example.com advisories.key",
				Action:      advisoryKeygen},
			{Name: "sign", Usage: "sign a table, JSON", ArgsUsage: "FILE",
				Description: "Prints the signed table. Begin with `" + p.Name + " advisories show --format json`, and count its version up.\n\nExample:\n   " + p.Name + " advisories sign --key-file advisories.key table.json > advisories.note",
				Flags:       []cli.Flag{&cli.StringFlag{Name: "key-file", Required: true, Usage: "`FILE` with the key of keygen"}}, Action: signAdvisories},
		},
	}
}

// namedAdvisories is the table that flags name, else the configuration's.
func namedAdvisories(c *cli.Context) (*advisory.Table, error) {
	if c.IsSet("advisories") || c.IsSet("advisory-key") {
		return trial.Advisories(c)
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return nil, err
	}
	return advisoriesOf(c, cfg.Policy, time.Now())
}

func showAdvisories(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	t, err := namedAdvisories(c)
	if err != nil {
		return err
	}
	return face.Print(c, t, printAdvisories)
}

func printAdvisories(w io.Writer, t *advisory.Table) error {
	names := map[string]string{}
	fmt.Fprintf(w, "%s, SHA-384 %s\n", t, t.Digest())
	for _, s := range t.Silicon {
		names[s.CPUID] = s.Name
	}
	for i := range t.Advisories {
		a := &t.Advisories[i]
		source := a.Source
		if a.Checked {
			source += ", checked"
		}
		fmt.Fprintf(w, "\n%s  %s (%s)\n", a.ID, a.Title, source)
		for _, f := range a.Floors {
			asks := strings.Join(f.Asks(), ", ")
			if a.Warning {
				asks = "any firmware: a warning"
			}
			fmt.Fprintf(w, "   %-8s %-20s %s\n", f.CPUID, names[f.CPUID], asks)
		}
		if a.TDX != nil {
			fmt.Fprintf(w, "   %-29s %s\n", "TDX", strings.Join(a.TDX.Asks(), ", "))
		}
	}
	return nil
}

func verifyAdvisories(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "FILE"); err != nil {
		return err
	}
	t, err := trial.ReadAdvisories(c, c.Args().First(), c.String("advisory-key"), time.Now())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: %d advisories for %d kinds of silicon\n", t, len(t.Advisories), len(t.Silicon))
	return err
}

func advisoryKeygen(c *cli.Context) error {
	if err := face.Args(c, 2, 2, "NAME KEYFILE"); err != nil {
		return err
	}
	public, private, err := advisory.Keygen(c.Args().Get(0))
	if err != nil {
		return face.WithStatus(face.Misused, err)
	}
	defer private.Wipe()
	f, err := os.OpenFile(c.Args().Get(1), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	_, err = f.Write(append(private.Reveal()[:private.Len():private.Len()], '\n'))
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("writing the key: %w", err)
	}
	_, err = fmt.Fprintln(c.App.Writer, public)
	return err
}

// maxAdvisoryKey bounds a file with a key, in bytes.
const maxAdvisoryKey = 4096

func signAdvisories(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "FILE"); err != nil {
		return err
	}
	b, err := bounded.File(c.String("key-file"), maxAdvisoryKey)
	if err != nil {
		return fmt.Errorf("reading --key-file: %w", err)
	}
	key := secret.New(b)
	defer key.Wipe()
	table, err := face.Read(c, c.Args().First(), advisory.MaxBytes)
	if err != nil {
		return fmt.Errorf("reading advisories: %w", err)
	}
	signed, err := advisory.Sign(table, key)
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(signed)
	return err
}
