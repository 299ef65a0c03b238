package store

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// Why a guest may not go on with a volume.
var (
	// ErrRolledBack: what is there is not what the volume's record says.
	ErrRolledBack = errors.New("the volume is not as it was left")
	// ErrVolumeTaken: another guest has opened the volume since.
	ErrVolumeTaken = errors.New("the volume was opened by another guest since")
	// ErrHasVolumes: with the workload, the keys of its volumes would go.
	ErrHasVolumes = errors.New("the workload has volumes")
)

// volumes are the keys and generations of workloads' volumes.
type volumes struct{ *core }

// volume is a row.
type volume struct {
	sealed             []byte
	generation, staged uint64
	accepts, session   string
	token              []byte
	rekey              bool
}

// OpenVolume audits that a guest opens a volume, and only then returns its key,
// which is fresh's if it has none yet. From then on the grant's token counts, and
// none from before. What holds for a DiskKey holds here.
func (s volumes) OpenVolume(ctx context.Context, workload, name string, appraised kbs.Digest, to Guest, fresh VolumeKey) (g kbs.VolumeGrant, err error) {
	random := make([]byte, 32)
	if _, err := io.ReadFull(s.rand, random); err != nil {
		return g, fmt.Errorf("drawing a volume's token: %w", err)
	}
	token := base64.RawURLEncoding.EncodeToString(random)
	var refused error
	err = s.write(ctx, func(tx *sql.Tx) error {
		r, err := s.readReleasable(context.WithoutCancel(ctx), tx, workload, appraised, false)
		if err != nil {
			return err
		}
		if refused = s.openable(tx, workload, r, appraised, to); refused != nil {
			return s.refuseVolume(tx, workload, name, to.Session, refused)
		}
		if err := s.untouched(r, workload); err != nil {
			return err
		}
		n, err := s.incarnate(context.WithoutCancel(ctx), tx, r.row)
		if err != nil {
			return err
		}
		v, err := readVolume(context.WithoutCancel(ctx), tx, workload, name)
		if errors.Is(err, ErrNotFound) {
			v, err = s.insertVolume(tx, workload, name, n, fresh.Key)
			if errors.Is(err, ErrLimit) {
				refused = err
				return s.refuseVolume(tx, workload, name, to.Session, refused)
			}
		}
		if err != nil {
			return err
		}
		g = kbs.VolumeGrant{Token: token, Generation: v.generation, Staged: v.staged}
		if g.Key, g.Next, err = s.volumeKeys(tx, workload, name, n, v.sealed, v.rekey, fresh); err != nil {
			return fmt.Errorf("opening the key of volume %s: %w", name, err)
		}
		hash := sha256.Sum256([]byte(token))
		_, err = tx.Exec("UPDATE volumes SET token = ?, session = ?, opened_at = ?, closed_at = NULL, refused = '' WHERE workload = ? AND name = ?",
			hash[:], to.Session, unixMilli(s.clock()), workload, name)
		if err != nil {
			return err
		}
		if err := noteGiven(tx, to.Session, kbs.Given{Volumes: []string{name}}); err != nil {
			return err
		}
		return s.log.append(tx, "session/"+to.Session, "volume.open", workload, fmt.Sprintf("volume %s, generation %d", name, v.generation))
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		clear(g.Key)
		clear(g.Next)
		return kbs.VolumeGrant{}, fmt.Errorf("opening volume %s: %w", name, err)
	}
	return g, nil
}

// untouched is nil if the registration is what was registered: its DiskKey, which
// is tied to every byte of it, opens. A volume outlives registrations, and is tied
// to none.
func (s volumes) untouched(r releasable, workload string) error {
	k, err := s.sealer.Open(r.sealed, r.location)
	if errors.Is(err, masterkey.ErrSealed) {
		err = fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if err != nil {
		return fmt.Errorf("opening disk key of workload %s: %w", workload, err)
	}
	k.Wipe()
	return nil
}

// openable refuses what Release would.
func (s volumes) openable(tx *sql.Tx, workload string, r releasable, appraised kbs.Digest, to Guest) error {
	if err := unconfirmed(context.Background(), tx, to.ReportID); err != nil {
		return err
	}
	if r.reg.Release != nil {
		if err := approved(tx, r.reg.Release.Approvals, kbs.ReleaseName(workload), workload, appraised); err != nil {
			return err
		}
	}
	if err := machineDenied(tx, to.Session); err != nil {
		return err
	}
	return new(counters).allow(r.reg.Release, s.clock(), true) // expiry
}

// refuseVolume audits a refusal, and fails for what is none.
func (s volumes) refuseVolume(tx *sql.Tx, workload, name, session string, refused error) error {
	switch {
	case errors.Is(refused, ErrLimit), errors.Is(refused, ErrNotApproved), errors.Is(refused, ErrConfirmed), errors.Is(refused, ErrRevoked), errors.Is(refused, ErrRolledBack):
	default:
		return refused
	}
	why := "rolled back"
	if !errors.Is(refused, ErrRolledBack) {
		why = whyRefused(refused)
	}
	return s.log.refuse(tx, refusal{session: session, action: "volume.refuse", object: workload, detail: "volume " + name + ": " + refused.Error(), workload: workload, why: why})
}

func (s volumes) insertVolume(tx *sql.Tx, workload, name string, of incarnation, fresh secret.Bytes) (v volume, err error) {
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM volumes WHERE workload = ?", workload).Scan(&n); err != nil {
		return v, err
	}
	if n >= kbs.MaxVolumesKept {
		return v, fmt.Errorf("the workload has %d volumes: %w", n, ErrLimit)
	}
	if fresh.Len() != kbs.VolumeKeyBytes {
		return v, fmt.Errorf("volume key of %d bytes, expected %d", fresh.Len(), kbs.VolumeKeyBytes)
	}
	if v.sealed, err = s.sealer.Seal(fresh, volumeLocation(workload, name, of)); err != nil {
		return v, err
	}
	_, err = tx.Exec("INSERT INTO volumes(workload, name, sealed, generation, staged, created_at) VALUES(?,?,?,0,0,?)", workload, name, v.sealed, unixMilli(s.clock()))
	return v, err
}

func readVolume(ctx context.Context, from rowQuerier, workload, name string) (v volume, err error) {
	var generation, staged int64
	var rekey int64
	err = from.QueryRowContext(ctx, "SELECT sealed, generation, staged, accepts, session, token, rekey FROM volumes WHERE workload = ? AND name = ?", workload, name).
		Scan(&v.sealed, &generation, &staged, &v.accepts, &v.session, &v.token, &rekey)
	if errors.Is(err, sql.ErrNoRows) {
		return v, fmt.Errorf("volume %s of workload %s: %w", name, workload, ErrNotFound)
	}
	if err == nil && (generation < 0 || staged < 0) {
		err = ErrTampered
	}
	v.generation, v.staged, v.rekey = uint64(generation), uint64(staged), rekey != 0
	return v, err
}

// held is the volume of whoever opened it last with that token. An unknown volume
// is no other answer than a wrong token.
func held(ctx context.Context, from rowQuerier, workload, name string, token secret.Bytes) (volume, error) {
	v, err := readVolume(ctx, from, workload, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return v, err
	}
	hash := sha256.Sum256(token.Reveal())
	if token.Len() == 0 || len(v.token) != len(hash) || subtle.ConstantTimeCompare(hash[:], v.token) != 1 {
		return v, ErrVolumeTaken
	}
	return v, nil
}

// admits judges what a guest found.
func (v *volume) admits(r kbs.VolumeStageRequest) error {
	switch r.Found {
	case kbs.VolumeGeneration:
		if r.Generation != 0 && (r.Generation == v.generation || r.Generation == v.staged || v.accepts == kbs.VolumeGeneration) {
			return nil
		}
		return fmt.Errorf("its data is of generation %d, the record says %s: %w", r.Generation, v.expected(), ErrRolledBack)
	case kbs.VolumeEmpty:
		if v.generation == 0 || v.accepts == kbs.VolumeEmpty {
			return nil
		}
		return fmt.Errorf("it is empty, the record says %s: %w", v.expected(), ErrRolledBack)
	case kbs.VolumeDamaged:
		if v.accepts == kbs.VolumeEmpty {
			return nil
		}
		return fmt.Errorf("it does not open with its key, the record says %s: %w", v.expected(), ErrRolledBack)
	}
	return fmt.Errorf("another volume is in its place, the record says %s: %w", v.expected(), ErrRolledBack)
}

func (v *volume) expected() string {
	switch {
	case v.generation == 0:
		return "it was never used"
	case v.staged != 0:
		return fmt.Sprintf("generation %d or %d", v.generation, v.staged)
	}
	return fmt.Sprintf("generation %d", v.generation)
}

// writeHeld is write for who has opened the volume last. Anybody may say so: only
// who has its token waits for a turn to write, and takes one.
func (s volumes) writeHeld(ctx context.Context, workload, name string, token secret.Bytes, do func(*sql.Tx, volume) error) error {
	_, err := held(ctx, s.db, workload, name, token)
	if err == nil {
		err = s.write(ctx, func(tx *sql.Tx) error {
			v, err := held(context.WithoutCancel(ctx), tx, workload, name, token)
			if err != nil {
				return err
			}
			return do(tx, v)
		})
	}
	return err
}

// StageVolume says which generation a guest is to write into the volume, if what
// it found there is as it was left, or accepted by the owner: else ErrRolledBack,
// which is audited and kept with the session's record.
func (s volumes) StageVolume(ctx context.Context, workload, name string, token secret.Bytes, r kbs.VolumeStageRequest) (next uint64, err error) {
	var refused error
	err = s.writeHeld(ctx, workload, name, token, func(tx *sql.Tx, v volume) error {
		if refused = v.admits(r); refused != nil {
			return s.keepRefusal(tx, workload, name, v.session, refused)
		}
		next = max(v.generation, v.staged, r.Generation) + 1
		if next >= math.MaxInt64 {
			return fmt.Errorf("generation %d: %w", next, ErrLimit)
		}
		has := v.generation // until a new one is confirmed in its place
		if r.Found == kbs.VolumeGeneration {
			has = r.Generation
		}
		_, err := tx.Exec("UPDATE volumes SET generation = ?, staged = ? WHERE workload = ? AND name = ?", int64(has), int64(next), workload, name)
		return err
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return 0, fmt.Errorf("volume %s: %w", name, err)
	}
	return next, nil
}

// keepRefusal shows it to the owner where he looks: in the audit log, and of the
// volume.
func (s volumes) keepRefusal(tx *sql.Tx, workload, name, session string, refused error) error {
	if _, err := tx.Exec("UPDATE volumes SET refused = ? WHERE workload = ? AND name = ?", refused.Error(), workload, name); err != nil {
		return err
	}
	if err := noteVolume(tx, session, kbs.VolumeRefusal{Volume: name, Why: refused.Error()}); err != nil {
		return err
	}
	return s.refuseVolume(tx, workload, name, session, refused)
}

// ConfirmVolume makes the staged generation the volume's, or gives that up: a full
// volume keeps the one that it has. To confirm again changes nothing.
func (s volumes) ConfirmVolume(ctx context.Context, workload, name string, token secret.Bytes, r kbs.VolumeConfirmRequest) error {
	err := s.writeHeld(ctx, workload, name, token, func(tx *sql.Tx, v volume) error {
		switch {
		case r.Generation != 0 && r.Generation == v.generation && v.staged == 0:
			return nil // the answer was lost
		case r.Generation == 0 || r.Generation != v.staged && r.Generation != v.generation:
			return fmt.Errorf("generation %d is confirmed, the record says %s: %w", r.Generation, v.expected(), ErrChanged)
		}
		var closed *int64
		if r.Closed {
			now := unixMilli(s.clock())
			closed = &now
		}
		_, err := tx.Exec("UPDATE volumes SET generation = ?, staged = 0, accepts = '', refused = '', closed_at = ? WHERE workload = ? AND name = ?",
			int64(r.Generation), closed, workload, name)
		if err != nil || !r.Closed {
			return err
		}
		return s.log.append(tx, "session/"+v.session, "volume.close", workload, fmt.Sprintf("volume %s, generation %d", name, r.Generation))
	})
	if err != nil {
		return fmt.Errorf("volume %s: %w", name, err)
	}
	return nil
}

// AcceptRollback lets the next guest go on with another generation, or with
// nothing. It holds until one has.
func (s volumes) AcceptRollback(ctx context.Context, workload, name, accepts, actor string) (st kbs.VolumeStatus, err error) {
	if accepts != kbs.VolumeGeneration && accepts != kbs.VolumeEmpty {
		return st, fmt.Errorf("accepting %q", accepts)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		if err := changed(tx.Exec("UPDATE volumes SET accepts = ? WHERE workload = ? AND name = ?", accepts, workload, name)); err != nil {
			return fmt.Errorf("volume %s of workload %s: %w", name, workload, err)
		}
		if st, err = scanVolume(tx.QueryRow("SELECT "+volumeColumns+" FROM volumes WHERE workload = ? AND name = ?", workload, name)); err != nil {
			return err
		}
		return s.log.append(tx, actor, "volume.accept-rollback", workload, fmt.Sprintf("volume %s, generation %d, accepts %s", name, st.Generation, accepts))
	})
	return st, err
}

// ForgetVolume deletes a volume's key.
func (s volumes) ForgetVolume(ctx context.Context, workload, name, actor string) error {
	return s.write(ctx, func(tx *sql.Tx) error {
		if err := changed(tx.Exec("DELETE FROM volumes WHERE workload = ? AND name = ?", workload, name)); err != nil {
			return fmt.Errorf("volume %s of workload %s: %w", name, workload, err)
		}
		return s.log.append(tx, actor, "volume.forget", workload, "volume "+name)
	})
}

const volumeColumns = "name, generation, staged, created_at, opened_at, closed_at, session, accepts, refused, rekey"

// Volumes are a workload's, by name.
func (s volumes) Volumes(ctx context.Context, workload string) ([]kbs.VolumeStatus, error) {
	all, err := list(ctx, s.db, scanVolume, "SELECT "+volumeColumns+" FROM volumes WHERE workload = ? ORDER BY name", workload)
	if err != nil {
		return nil, fmt.Errorf("listing volumes: %w", err)
	}
	return all, nil
}

func scanVolume(r row) (v kbs.VolumeStatus, err error) {
	var generation, staged, created, rekey int64
	var opened, closed *int64
	if err := r.Scan(&v.Name, &generation, &staged, &created, &opened, &closed, &v.Session, &v.Accepts, &v.Refused, &rekey); err != nil {
		return v, err
	}
	v.Generation, v.Staged, v.CreatedAt = uint64(generation), uint64(staged), fromMilli(created)
	v.Rekey = rekey != 0
	v.OpenedAt, v.ClosedAt = fromNullMilli(opened), fromNullMilli(closed)
	return v, nil
}

// eachVolumeKey gives every volume's sealed key to change, and stores what it
// returns.
func eachVolumeKey(tx *sql.Tx, change func(workload, name string, sealed []byte) ([]byte, error)) error {
	var id, name string
	for {
		var sealed []byte
		err := tx.QueryRow("SELECT workload, name, sealed FROM volumes WHERE (workload, name) > (?, ?) ORDER BY workload, name LIMIT 1", id, name).Scan(&id, &name, &sealed)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		if sealed, err = change(id, name, sealed); err != nil {
			return fmt.Errorf("key of volume %s of workload %s: %w", name, id, err)
		}
		if _, err := tx.Exec("UPDATE volumes SET sealed = ? WHERE workload = ? AND name = ?", sealed, id, name); err != nil {
			return err
		}
	}
}

// refuseWithVolumes keeps what has removed a workload that has volumes from being
// committed: whoever registers its id next would have their keys.
func refuseWithVolumes(tx *sql.Tx, workload string) error {
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM volumes WHERE workload = ?1 AND NOT EXISTS(SELECT 1 FROM workloads WHERE id = ?1)", workload).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("%d of them: %w", n, ErrHasVolumes)
	}
	return nil
}
