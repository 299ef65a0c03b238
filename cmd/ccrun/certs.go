package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func certsCommand() *cli.Command {
	return &cli.Command{
		Name:  "certs",
		Usage: "keep AMD's and Intel's endorsements for verification without a network",
		Description: "The cache holds certificates, CRLs and TDX collateral that the vendors' built-in roots vouch\n" +
			"for, in files named by their SHA-256. `ccrun verify --endorsements` and attest-server's\n" +
			"`endorsements` take the directory as it is.\n\n" +
			"Example, into an air gap:\n   ccrun certs fetch --evidence report.bin\n   ccrun certs export endorsements.tar\n" +
			"   ccrun certs import endorsements.tar   # on the other side",
		Subcommands: []*cli.Command{certsFetch(), certsImport(), certsExport(), certsList()},
	}
}

func certsDirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "cache `DIR` (default: ccrun/endorsements in $XDG_CACHE_HOME; root: /var/cache/ccrun/endorsements)"}
}

func certsList() *cli.Command {
	return &cli.Command{
		Name:        "ls",
		Usage:       "list what the cache holds and when it expires",
		Description: "Example:\n   ccrun certs ls --format '{{range .}}{{.Expires}} {{.Product}}{{\"\\n\"}}{{end}}'",
		Flags:       []cli.Flag{certsDirFlag(), face.ListFormatFlag()},
		Action: func(c *cli.Context) error {
			if err := face.NoArgs(c); err != nil {
				return err
			}
			cache, err := openCerts(c)
			if err != nil {
				return err
			}
			for _, r := range cache.Refused() {
				fmt.Fprintf(c.App.ErrWriter, "ccrun: not used: %s: %s\n", face.Printable(r.Name), face.Printable(r.Reason))
			}
			return printCerts(c, cache.List(), time.Now())
		},
	}
}

func certsExport() *cli.Command {
	return &cli.Command{
		Name:        "export",
		Usage:       "write the cache as a tar archive, the same bytes for the same content",
		ArgsUsage:   "FILE|-",
		Description: "Example:\n   ccrun certs export endorsements.tar",
		Flags:       []cli.Flag{certsDirFlag()},
		Action: func(c *cli.Context) error {
			if err := face.Args(c, 1, 1, "FILE, or - for stdout"); err != nil {
				return err
			}
			cache, err := openCerts(c)
			if err != nil {
				return err
			}
			if len(cache.List()) == 0 {
				return hint.With(fmt.Errorf("nothing to export in %s", certsDir(c)), "fill the cache with `ccrun certs fetch` or `import`")
			}
			if c.Args().First() == "-" {
				return cache.Export(c.App.Writer)
			}
			return writeWhole(c.Args().First(), cache.Export)
		},
	}
}

// writeWhole writes a file that is there whole or not at all.
func writeWhole(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), ".ccrun-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error at hand counts more
		}
	}()
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

func certsImport() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "take in certificates, CRLs and collateral from files, directories and tar archives",
		ArgsUsage: "FILE|DIR...",
		Description: "Told apart by content: DER, PEM, *.collateral.json, PcsClientTool's platform_collaterals.json, tar,\n" +
			"tar.gz. What the vendors' roots do not\n" +
			"vouch for is refused with the reason, and the exit status is 1, but the rest is taken in.\n" +
			"Of CRLs and collateral only the freshest is kept.\n\nExample:\n   ccrun certs import endorsements.tar vcek.der",
		Flags: []cli.Flag{certsDirFlag(), face.FormatFlag(),
			&cli.BoolFlag{Name: "ignore-refused", Usage: "exit 0 although something was refused"}},
		Action: importCerts,
	}
}

func importCerts(c *cli.Context) error {
	if err := face.Args(c, 1, -1, "FILE or DIR"); err != nil {
		return err
	}
	cache, err := openCerts(c)
	if err != nil {
		return err
	}
	all := []endorsements.Outcome{}
	refused := 0
	for _, name := range c.Args().Slice() {
		o, err := cache.Import(name)
		all = append(all, o...)
		if err != nil {
			return fmt.Errorf("importing %s: %w", name, err)
		}
	}
	for _, o := range all {
		if o.Result == endorsements.Refused {
			refused++
		}
	}
	err = face.Print(c, all, func(w io.Writer, _ []endorsements.Outcome) error {
		for _, o := range all {
			what := o.Reason
			if o.Endorsement != nil {
				what = o.Endorsement.Kind + " " + o.Endorsement.Product + ", expires: " + expiry(o.Endorsement.Expires, time.Now())
			}
			if _, err := fmt.Fprintf(w, "%s: %s: %s\n", face.Printable(o.Name), o.Result, face.Printable(what)); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(all) == 0:
		return fmt.Errorf("nothing to import")
	case refused > 0 && !c.Bool("ignore-refused"):
		return fmt.Errorf("%d of %d refused", refused, len(all))
	}
	return nil
}

// certsDir is where the cache lies: the user's, or the system's for root.
func certsDir(c *cli.Context) string {
	if dir := c.String("dir"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 && os.Getenv("XDG_CACHE_HOME") == "" {
		return "/var/cache/ccrun/endorsements"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "ccrun", "endorsements")
}

func openCerts(c *cli.Context) (*endorsements.Cache, error) {
	dir := certsDir(c)
	if dir == "" {
		return nil, hint.With(fmt.Errorf("no cache directory: neither $XDG_CACHE_HOME nor $HOME is set"), "name one with --dir")
	}
	return endorsements.OpenCache(endorsements.CacheOptions{Dir: dir})
}

// certRow is an Endorsement with its state, as ls prints it.
type certRow struct {
	*endorsements.Endorsement
	State string `json:"state"` // "expired", or "in N days"
}

func printCerts(c *cli.Context, list []*endorsements.Endorsement, now time.Time) error {
	rows := []certRow{}
	for _, e := range list {
		rows = append(rows, certRow{e, expiry(e.Expires, now)})
	}
	return face.List(c, rows, func(r certRow) string { return r.SHA256 }, func(w io.Writer, _ []certRow) error {
		t := face.Table(w)
		fmt.Fprintln(t, "KIND\tPRODUCT\tEXPIRES\tSUBJECT\tSHA256")
		for _, r := range rows {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.12s\n", r.Kind, r.Product, r.State, face.Printable(shortHex(r.Subject)), r.SHA256)
		}
		return t.Flush()
	})
}

// shortHex cuts a chip's 128 digits, which would break every line.
func shortHex(s string) string {
	const head = len("chip ") + 16
	if len(s) > head+112 && s[:5] == "chip " {
		return s[:head] + "..." + s[5+128:]
	}
	return s
}

func expiry(t, now time.Time) string {
	const day = 24 * time.Hour
	left := t.Sub(now)
	switch {
	case t.IsZero() || left < 0:
		return "expired"
	case left < day:
		return fmt.Sprintf("in %d hours", left/time.Hour)
	case left < 2*day:
		return "in 1 day"
	}
	return fmt.Sprintf("in %d days", left/day)
}
