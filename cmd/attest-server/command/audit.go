package command

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
)

func (p Program) auditCommand() *cli.Command {
	return &cli.Command{
		Name:        "audit",
		Usage:       "verify and export the audit log",
		Description: "Every registration, change, grant, release and denial of authentic Evidence is an entry; each\ncovers the one before it.\n\nExample:\n   " + p.Name + " audit verify --expect 1041:9f86d081884c7d65...",
		Subcommands: []*cli.Command{
			{
				Name: "verify", Usage: "check chain, tree, checkpoints and signature and print the head, SEQUENCE:HASH",
				Description: "An edited or deleted entry breaks the chain by itself; a tail cut off lacks the entry that was signed\n" +
					"last. The signing key is checked with the master key if that is at hand, or with --public-key.\n" +
					"Entries of `token`, `tenant` and `policy`, which need no master key, are signed at the server's next\n" +
					"write, and an entry `audit.unsigned` says which they were: anybody who writes the database can make such.\n" +
					"With --config all that its witnesses' directories hold is compared, too. Without witnesses keep the head\n" +
					"elsewhere and give it to the next --expect: only that shows an old copy of the whole store.\n" +
					"Of a log that was archived the entries that are left are checked, from the signed base on; with each\n" +
					"--archive those in that file, too.\n\nExample:\n   " + p.Name + " audit verify",
				Flags: []cli.Flag{
					configFlag(), dataFlag(), &cli.StringFlag{Name: "expect", Usage: "`SEQUENCE:HASH` that must be in the chain"},
					&cli.StringSliceFlag{Name: "archive", Usage: "`FILE` with entries that were archived, in any order (repeatable)"},
					&cli.StringFlag{Name: "public-key", Usage: "`HEX` of the key that must have signed (default: what the master key vouches for)"},
					face.FormatFlag(),
				},
				Action: p.verifyAudit,
			},
			{
				Name: "export", Usage: "print entries as JSON, one a line",
				Description: "Example:\n   " + p.Name + " audit export --after 1000",
				Flags:       []cli.Flag{configFlag(), dataFlag(), &cli.Int64Flag{Name: "after", Usage: "only entries after `SEQUENCE`"}},
				Action:      p.exportAudit,
			},
			p.archiveCommand(), p.introduceCommand(), p.auditKeyCommand(), p.acceptRollbackCommand(),
		},
	}
}

func (p Program) verifyAudit(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	expect := c.String("expect")
	sequence, _, ok := strings.Cut(expect, ":")
	if n, err := strconv.ParseInt(sequence, 10, 64); expect != "" && (!ok || err != nil || n < 0) {
		return face.Usagef("--expect %q: expected SEQUENCE:HASH", expect)
	}
	return withStore(c, func(s *store.DB) error {
		signed, err := s.AuditHead(c.Context)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		cfg, err := storeConfig(c)
		if err != nil {
			return err
		}
		witnesses, err := openWitnesses(cfg.Witness, cfg.WitnessOptional)
		if err != nil {
			return err
		}
		tree, err := newTreeCheck(c.Context, s, signed.PublicKey, witnesses)
		if err != nil {
			return err
		}
		walk, err := newAuditWalk(c, s, tree, signed)
		if err != nil {
			return err
		}
		if err = walk.all(c, s); err == nil {
			err = tree.end()
		}
		if err != nil {
			return err
		}
		head, covered := walk.head, walk.covered
		if !walk.found {
			return fmt.Errorf("audit chain is whole but does not hold %s; it ends at %s: %w", expect, head, store.ErrTampered)
		}
		p.noteArchived(c, walk)
		p.Note(c, "the tree over the entries is that of %d checkpoints", tree.count)
		if err := p.checkSigned(c, s, signed, covered, head); err != nil {
			return err
		}
		sequence, hash, _ := strings.Cut(head, ":")
		return face.Print(c, auditEnd{json.Number(sequence), hash}, func(w io.Writer, _ auditEnd) error {
			_, err := fmt.Fprintln(w, head)
			return err
		})
	})
}

// auditEnd is a chain's last entry, as --format shows it.
type auditEnd struct {
	Sequence json.Number `json:"sequence"`
	Hash     string      `json:"hash"` // hex
}

// checkSigned checks that the chain holds what was signed last, and who
// signed.
func (p Program) checkSigned(c *cli.Context, s *store.DB, signed kbs.AuditHead, covered bool, head string) error {
	switch {
	case signed.Sequence == 0 && head == "0:":
		return nil
	case signed.Sequence == 0:
		return fmt.Errorf("audit chain is whole up to %s, but its end was never signed: start the server once, if it was upgraded just now: %w", head, store.ErrTampered)
	case !covered:
		return fmt.Errorf("audit chain ends at %s and lacks entry %d, signed %s: %w", head, signed.Sequence, signed.At.Format(time.RFC3339), store.ErrTampered)
	}
	if last, _, _ := strings.Cut(head, ":"); last != strconv.FormatInt(signed.Sequence, 10) {
		p.Note(c, "entries %d to %s were written without the master key, as `token`, `tenant` and `policy` do, and are not signed yet: are they yours?", signed.Sequence+1, last)
	}
	by, err := expectedSigner(c, s)
	if err != nil {
		return err
	}
	signer := hex.EncodeToString(signed.PublicKey)
	if by == "" {
		p.Note(c, "signed up to entry %d by key %s, which nobody vouches for here: there is neither master key nor --public-key", signed.Sequence, signer)
		return nil
	}
	if !strings.EqualFold(by, signer) {
		return fmt.Errorf("audit head is signed by key %s, expected %s: %w", signer, by, store.ErrTampered)
	}
	p.Note(c, "signed up to entry %d by key %s", signed.Sequence, signer)
	return nil
}

// expectedSigner is the key in hex that should have signed, or "".
func expectedSigner(c *cli.Context, s *store.DB) (string, error) {
	if k := c.String("public-key"); k != "" {
		return k, nil
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return "", err
	}
	master, err := cfg.loadMasterKey(c.Context)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer master.Wipe()
	k, err := s.AuditKey(c.Context, master)
	return hex.EncodeToString(k), err
}

func (p Program) exportAudit(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	if c.Int64("after") < 0 {
		return face.Usagef("--after %d: expected a sequence number", c.Int64("after"))
	}
	return withStore(c, func(s *store.DB) error {
		base, err := s.Base(c.Context)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if base.Sequence > c.Int64("after") {
			p.Note(c, "entries up to %d are in archives, and not printed here", base.Sequence)
		}
		w := bufio.NewWriter(c.App.Writer)
		e := json.NewEncoder(w)
		if err := s.Audit(c.Context, c.Int64("after"), func(x store.AuditEntry) error { return e.Encode(x) }); err != nil {
			return err
		}
		return w.Flush()
	})
}
