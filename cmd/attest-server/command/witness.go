package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/cmd/face"
)

func (p Program) introduceCommand() *cli.Command {
	return &cli.Command{
		Name: "introduce", Usage: "have witnesses that know nothing of this log remember it",
		Description: "A server releases nothing while one of its witnesses has nothing of its log: an empty directory may be\n" +
			"one that is not mounted, and an old copy of the store could be behind anything. So each new witness is told\n" +
			"once, by this command. What a witness has already is checked like at serve.\n\nExample:\n   " +
			p.Name + " audit introduce --config /etc/attest-server/attest-server.toml --witness backup",
		Flags: []cli.Flag{
			configFlag(), dataFlag(),
			&cli.StringSliceFlag{Name: "witness", Usage: "`NAME` of a witness of the configuration (repeatable; default: all)"},
		},
		Action: p.introduce,
	}
}

func (p Program) auditKeyCommand() *cli.Command {
	return &cli.Command{
		Name: "key", Usage: "print the keys whose signatures on this log's checkpoints count, the one in use first",
		Description: "A line is a key in the form of C2SP signed-note: for witnesses, and for `ccrun monitor --log-key`.\n\nExample:\n   " + p.Name + " audit key",
		Flags:       []cli.Flag{configFlag(), dataFlag()},
		Action: func(c *cli.Context) error {
			if err := face.NoArgs(c); err != nil {
				return err
			}
			cfg, err := storeConfig(c)
			if err != nil {
				return err
			}
			return cfg.withUnlocked(c.Context, func(s *store.DB) error {
				keys, err := s.LogKeys(c.Context)
				for _, k := range keys {
					fmt.Fprintln(c.App.Writer, k)
				}
				return err
			})
		},
	}
}

func (p Program) introduce(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	all, err := openWitnesses(cfg.Witness, cfg.WitnessOptional)
	if err != nil {
		return err
	}
	chosen, err := chooseWitnesses(all, c.StringSlice("witness"))
	if err != nil {
		return err
	}
	return cfg.withUnlocked(c.Context, func(s *store.DB) error {
		for _, w := range chosen {
			if err := introduceTo(c.Context, s, w); err != nil {
				return err
			}
			if err := s.Note(c.Context, "audit.introduce", w.Name, ""); err != nil {
				return err
			}
			if _, err := fmt.Fprintln(c.App.Writer, w.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// introduceTo also has the store know that there are witnesses, before the first of
// them has seen anything: what they have not seen is not archived.
func introduceTo(ctx context.Context, s *store.DB, w witness.Named) error {
	_, err := s.Witnessed(ctx)
	if errors.Is(err, store.ErrNotFound) {
		var first checkpoint.Signed
		if first, err = s.Checkpoint(ctx); err == nil {
			err = s.SetWitnessed(ctx, first)
		}
	}
	if err != nil {
		return err
	}
	return witness.Introduce(ctx, s, w)
}

func chooseWitnesses(all []witness.Named, names []string) (chosen []witness.Named, err error) {
	if len(all) == 0 {
		return nil, face.Usagef("no witness: name the configuration that has them with --config")
	}
	if len(names) == 0 {
		return all, nil
	}
	for _, name := range names {
		for _, w := range all {
			if w.Name == name {
				chosen = append(chosen, w)
			}
		}
	}
	if len(chosen) != len(names) {
		return nil, face.Usagef("--witness %s: the configuration does not name all of them", strings.Join(names, ", "))
	}
	return chosen, nil
}
