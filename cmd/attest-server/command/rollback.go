package command

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// maxReason bounds --reason, which goes into an audit entry.
const maxReason = 500

func (p Program) acceptRollbackCommand() *cli.Command {
	return &cli.Command{
		Name: "accept-rollback", Usage: "go on with an old copy of the store, as a new log",
		Description: "Only if no newer copy is left: the server forgets what was revoked, withdrawn, counted and confirmed since,\n" +
			"and what witnesses have seen stays as evidence. An audit entry says so, with the reason and what each\n" +
			"witness has said. The log then has a new name and a new key line, `audit key`, which witnesses that sign\n" +
			"must be given; the others are introduced to it here. It refuses where no witness contradicts the log.\n\n" +
			"Example:\n   " + p.Name + " audit accept-rollback --config /etc/attest-server/attest-server.toml --reason 'disk lost, backup of Monday'",
		Flags:  []cli.Flag{configFlag(), dataFlag(), &cli.StringFlag{Name: "reason", Required: true, Usage: "`TEXT` for the audit log"}},
		Action: p.acceptRollback,
	}
}

func (p Program) acceptRollback(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	reason := strings.TrimSpace(c.String("reason"))
	if reason == "" || len(reason) > maxReason {
		return face.Usagef("--reason of %d bytes, expected 1 to %d", len(reason), maxReason)
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	all, err := openWitnesses(cfg.Witness, cfg.WitnessOptional)
	if err != nil {
		return err
	}
	if _, err := chooseWitnesses(all, nil); err != nil {
		return err
	}
	return cfg.withUnlocked(c.Context, func(s *store.DB) error {
		said, err := contradictions(c, s, all)
		if err != nil {
			return err
		}
		origin, err := s.NewLog(c.Context, reason+"; "+strings.Join(said, "; "))
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(c.App.Writer, origin); err != nil {
			return err
		}
		return p.introduceAll(c, s, all)
	})
}

// contradictions is what witnesses say against the log. It is an error if none
// does.
func contradictions(c *cli.Context, s *store.DB, all []witness.Named) (said []string, err error) {
	against := false
	for _, w := range all {
		err := witness.Ask(c.Context, s, w)
		if err == nil {
			err = errors.New("agrees")
		} else {
			// What is not proven the operator may know better.
			against = against || errors.Is(err, witness.ErrBehind) || errors.Is(err, witness.ErrFork) || errors.Is(err, witness.ErrUnproven)
		}
		said = append(said, fmt.Sprintf("witness %s: %.300s", w.Name, err))
	}
	if !against {
		return nil, hint.With(fmt.Errorf("no witness has seen another log: there is no rollback to accept: %s", strings.Join(said, "; ")), "a witness that has nothing is told by `audit introduce`")
	}
	return said, nil
}

// introduceAll tells all witnesses of a new log, and which of them must be told
// by hand.
func (p Program) introduceAll(c *cli.Context, s *store.DB, all []witness.Named) error {
	for _, w := range all {
		if err := introduceTo(c.Context, s, w); err != nil {
			p.Note(c, "%v: give it the new key, `audit key`, then run `audit introduce --witness %s`", err, w.Name)
		}
	}
	return nil
}
