// Package witness holds the audit log to what it said once, by somebody who does
// not share its database: it shows checkpoints to witnesses and has the server
// release nothing while its log is not what they have seen. It is also such a
// witness itself, for other logs, by C2SP tlog-witness.
package witness

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/hint"
)

// What a witness can say against a log.
var (
	// ErrBehind: it has seen a longer log. An older copy of the store was put
	// back, or somebody else writes under the same key.
	ErrBehind = errors.New("the audit log is behind what a witness has seen")
	// ErrFork: it has seen other entries.
	ErrFork = errors.New("the audit log is not the one that a witness has seen")
	// ErrForged: what it shows was not signed by whom it says.
	ErrForged = errors.New("a witness shows what nobody signed")
	// ErrNothing: it has seen nothing of this log, or has lost it.
	ErrNothing = errors.New("a witness has nothing of this log")
	// ErrAway: it does not answer, or not as a witness does.
	ErrAway = errors.New("a witness is out of reach")
	// ErrUnproven: it says that it has seen more, or other, entries, and shows no
	// checkpoint of this log that says so, too.
	ErrUnproven = errors.New("a witness says against the audit log what it does not prove")
	// ErrTooOld: what it has seen last was archived since.
	ErrTooOld = errors.New("a witness has seen no more than what was archived")
)

// Log is the audit log, as a store has it.
type Log interface {
	// Checkpoint signs the log as it is now.
	Checkpoint(ctx context.Context) (checkpoint.Signed, error)
	// LogKeys are the keys that sign, and have signed, its checkpoints: the one
	// in use first.
	LogKeys(ctx context.Context) ([]checkpoint.Verifier, error)
	// Consistency is the RFC 6962 proof that the first to entries begin with the
	// first from; checkpoint.ErrArchived if those are not at hand any more.
	Consistency(ctx context.Context, from, to int64) ([]tlog.Hash, error)
	// SetWitnessed keeps a checkpoint with its cosignatures.
	SetWitnessed(ctx context.Context, c checkpoint.Signed) error
}

// Witness remembers checkpoints of a log.
type Witness interface {
	// Show has the witness remember c, if that extends what it has seen, and
	// returns its signature lines on c; nil from one that does not sign. Without
	// first, a witness that has seen nothing is ErrNothing and remembers nothing.
	Show(ctx context.Context, log Log, c checkpoint.Signed, first bool) (cosignature []byte, err error)
}

// extends checks that c extends the checkpoint in seen, which must be the log's
// own.
func extends(ctx context.Context, log Log, c checkpoint.Signed, seen []byte) error {
	keys, err := log.LogKeys(ctx)
	if err != nil {
		return err
	}
	s, err := checkpoint.Open(seen, keys)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrForged, err)
	}
	return follows(ctx, log, c, s.Checkpoint)
}

// follows proves that c extends seen.
func follows(ctx context.Context, log Log, c checkpoint.Signed, seen checkpoint.Checkpoint) error {
	switch {
	case seen.Origin != c.Origin:
		return fmt.Errorf("%w: it has seen log %q, and this one is %q", ErrFork, seen.Origin, c.Origin)
	case seen.Size > c.Size:
		return behind(c, seen.Size)
	}
	proof, err := consistency(ctx, log, seen.Size, c.Size)
	if err != nil {
		return err
	}
	if err := checkpoint.Extends(proof, seen, c.Checkpoint); err != nil {
		return fmt.Errorf("%w: %w", ErrFork, err)
	}
	return nil
}

func consistency(ctx context.Context, log Log, from, to int64) ([]tlog.Hash, error) {
	proof, err := log.Consistency(ctx, from, to)
	if errors.Is(err, checkpoint.ErrArchived) {
		err = fmt.Errorf("%w: it has seen %d entries: %w", ErrTooOld, from, err)
	}
	return proof, err
}

func behind(c checkpoint.Signed, size int64) error {
	return fmt.Errorf("%w: it has seen %d entries, and there are %d", ErrBehind, size, c.Size)
}

// contradicts says whether err is a witness's word against the log, for which it
// has shown the log's own signature.
func contradicts(err error) bool { return errors.Is(err, ErrBehind) || errors.Is(err, ErrFork) }

// lies says whether err is that a witness is broken, or lies. That is no word
// against the log: else each witness could stop all releases. It is none for it,
// either.
func lies(err error) bool { return errors.Is(err, ErrForged) || errors.Is(err, ErrUnproven) }

// silent says whether err is that a witness has said nothing that counts. What is
// neither that nor against the log, such as a proof that the store cannot give,
// counts against the log.
func silent(err error) bool {
	return errors.Is(err, ErrAway) || errors.Is(err, ErrNothing) || errors.Is(err, ErrTooOld) || lies(err)
}

// nextStep is what the operator can do about err of the witness name.
func nextStep(name string, err error) error {
	switch {
	case errors.Is(err, ErrBehind), errors.Is(err, ErrFork):
		return hint.With(err, "was an old copy of the store put back? Put the newest back; if there is none, "+
			"`attest-server audit accept-rollback --reason TEXT` begins a new log, after which what was revoked or counted meanwhile must be again: docs/operations.md")
	case errors.Is(err, ErrForged):
		return hint.With(err, "look at what witness %s holds, and at its key in the configuration", name)
	case errors.Is(err, ErrUnproven):
		return hint.With(err, "if an old copy of the store was put back, put the newest back, or see `attest-server audit accept-rollback`; "+
			"if not, witness %s lies, or has lost its memory: take it out of the configuration", name)
	case errors.Is(err, ErrTooOld):
		return hint.With(err, "witness %s was put back, or was away while the log was archived: have it begin anew, then `attest-server audit introduce --witness %[1]s`", name)
	case errors.Is(err, ErrNothing):
		return hint.With(err, "if this witness is new, or begins anew, have it remember this log: `attest-server audit introduce --witness %s`; if it is a directory, is it mounted?", name)
	}
	return hint.With(err, "bring witness %s back, or say `optional = true` for it to start without its word", name)
}
