package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// ErrNoRotation reports a rotation that is not the one under way.
var ErrNoRotation = errors.New("no such rotation is under way")

const (
	rotationIDSize  = 8
	stagedKeyRandom = 32
)

// Rotation is a staged change of a DiskKey. Its holder wipes the keys.
type Rotation struct {
	ID              string
	StagedAt        time.Time
	Current, Staged secret.Bytes
}

// Wipe overwrites the keys.
func (r *Rotation) Wipe() {
	r.Current.Wipe()
	r.Staged.Wipe()
}

// rotations change DiskKeys in two steps, so that the guest can follow.
type rotations struct{ *core }

// StageRotation draws a new DiskKey for the workload and keeps it beside the
// one in use, or returns the one that is staged already.
func (s rotations) StageRotation(ctx context.Context, id, actor string) (r Rotation, err error) {
	fresh, err := s.draw()
	if err != nil {
		return Rotation{}, err
	}
	defer fresh.Wipe()
	err = s.write(ctx, func(tx *sql.Tx) error {
		id, err := rowOf(ctx, tx, id)
		if err != nil {
			return err
		}
		w, err := readRotating(tx, id)
		if err != nil {
			return err
		}
		if r.Current, err = s.sealer.Open(w.sealed, diskKeyLocation(id, w.canonical)); err != nil {
			return fmt.Errorf("opening disk key of workload %s: %w: %w", id, ErrTampered, err)
		}
		if w.rotation != nil {
			r.ID, r.StagedAt = *w.rotation, fromMilli(*w.stagedAt)
			if r.Staged, err = s.sealer.Open(w.staged, stagedLocation(id, r.ID, w.canonical)); err != nil {
				return fmt.Errorf("opening staged disk key of workload %s: %w: %w", id, ErrTampered, err)
			}
			return nil
		}
		r.ID, r.StagedAt = fresh.ID, fresh.StagedAt
		r.Staged = secret.New(bytes.Clone(fresh.Staged.Reveal()))
		return s.insertStaged(tx, id, w.canonical, r, actor)
	})
	if err != nil {
		r.Wipe()
		return Rotation{}, fmt.Errorf("staging rotation: %w", err)
	}
	return r, nil
}

// draw is a new DiskKey, of a rotation that is not staged yet.
func (s rotations) draw() (r Rotation, err error) {
	random := make([]byte, stagedKeyRandom+rotationIDSize)
	defer clear(random)
	if _, err := io.ReadFull(s.rand, random); err != nil {
		return r, fmt.Errorf("drawing disk key: %w", err)
	}
	r.Staged = secret.New(hex.AppendEncode(nil, random[:stagedKeyRandom]))
	r.ID, r.StagedAt = hex.EncodeToString(random[stagedKeyRandom:]), fromMilli(unixMilli(s.clock()))
	return r, nil
}

func (s rotations) insertStaged(tx *sql.Tx, id string, canonical []byte, r Rotation, actor string) error {
	sealed, err := s.sealer.Seal(r.Staged, stagedLocation(id, r.ID, canonical))
	if err != nil {
		return fmt.Errorf("sealing staged disk key: %w", err)
	}
	_, err = tx.Exec("UPDATE workloads SET staged_key = ?, staged_rotation = ?, staged_at = ? WHERE id = ?", sealed, r.ID, unixMilli(r.StagedAt), id)
	if err != nil {
		return err
	}
	return s.log.append(tx, actor, "workload.rotate.stage", kbs.WorkloadOf(id), asideColon(id)+"rotation "+r.ID)
}

// CommitRotation makes the staged DiskKey the only one. image, if not empty,
// is the manifest digest to show for the workload from now on. Committing the
// last rotation again changes nothing; any other is ErrNoRotation.
func (s rotations) CommitRotation(ctx context.Context, id, rotation, image, actor string) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		id, err := rowOf(ctx, tx, id)
		if err != nil {
			return err
		}
		w, err := readRotating(tx, id)
		switch {
		case err != nil:
			return err
		case rotation != "" && w.last == rotation:
			return nil
		case w.rotation == nil || *w.rotation != rotation:
			return fmt.Errorf("rotation %q of workload %s: %w", rotation, id, ErrNoRotation)
		}
		k, err := s.sealer.Open(w.staged, stagedLocation(id, rotation, w.canonical))
		if err != nil {
			return fmt.Errorf("opening staged disk key of workload %s: %w: %w", id, ErrTampered, err)
		}
		defer k.Wipe()
		sealed, err := s.sealer.Seal(k, diskKeyLocation(id, w.canonical))
		if err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE workloads SET disk_key = ?, rotation = ?, rotated_at = ?, drawn_at = staged_at, image = CASE ? WHEN '' THEN image ELSE ? END,
			staged_key = NULL, staged_rotation = NULL, staged_at = NULL WHERE id = ?`,
			sealed, rotation, unixMilli(s.clock()), image, image, id)
		if err != nil {
			return err
		}
		return s.log.append(tx, actor, "workload.rotate.commit", kbs.WorkloadOf(id), asideColon(id)+"rotation "+rotation)
	})
	if err != nil {
		return fmt.Errorf("committing rotation: %w", err)
	}
	return nil
}

// AbortRotation forgets the staged DiskKey.
func (s rotations) AbortRotation(ctx context.Context, id, rotation, actor string) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		id, err := rowOf(ctx, tx, id)
		if err != nil {
			return err
		}
		w, err := readRotating(tx, id)
		if err != nil {
			return err
		}
		if w.rotation == nil || *w.rotation != rotation {
			return fmt.Errorf("rotation %q of workload %s: %w", rotation, id, ErrNoRotation)
		}
		if _, err := tx.Exec("UPDATE workloads SET staged_key = NULL, staged_rotation = NULL, staged_at = NULL WHERE id = ?", id); err != nil {
			return err
		}
		return s.log.append(tx, actor, "workload.rotate.abort", kbs.WorkloadOf(id), asideColon(id)+"rotation "+rotation)
	})
	if err != nil {
		return fmt.Errorf("aborting rotation: %w", err)
	}
	return nil
}

type rotating struct {
	canonical, sealed, staged []byte
	rotation                  *string
	stagedAt                  *int64
	last                      string
}

func readRotating(tx *sql.Tx, id string) (w rotating, err error) {
	var revoked *int64
	err = tx.QueryRow(`SELECT registration, disk_key, staged_key, staged_rotation, staged_at, coalesce(rotation, ''), revoked_at
		FROM workloads WHERE id = ?`, id).Scan(&w.canonical, &w.sealed, &w.staged, &w.rotation, &w.stagedAt, &w.last, &revoked)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return w, fmt.Errorf("workload %s: %w", id, ErrNotFound)
	case err != nil:
		return w, err
	case revoked != nil:
		return w, fmt.Errorf("workload %s: %w", id, ErrRevoked)
	case (w.rotation == nil) != (w.stagedAt == nil):
		return w, fmt.Errorf("workload %s is staged by half: %w", id, ErrTampered)
	}
	return w, nil
}
