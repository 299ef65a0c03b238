package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/tuple"
	"github.com/ccrun/ccrun/secret"
)

// Register stores a registration with its DiskKey. created is false if
// exactly that was there already. Otherwise a taken id is a *ConflictError
// and an identity that another has a *DuplicateIdentityError; nothing is
// overwritten. boot, which may be nil, is kept if there is none yet.
func (s workloads) Register(ctx context.Context, reg kbs.Registration, boot *kbs.Boot, diskKey secret.Bytes, actor string) (created bool, err error) {
	canonical, err := kbs.Canonical(reg)
	if err != nil {
		return false, fmt.Errorf("encoding registration: %w", err)
	}
	if s.sealer == nil {
		return false, fmt.Errorf("sealing disk key: %w", ErrLocked)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		created = false
		same, err := s.registered(tx, reg.WorkloadID, canonical, diskKey)
		if err != nil || same {
			if err == nil {
				err = keepBoot(tx, reg.WorkloadID, boot)
			}
			return err
		}
		sealed, err := s.sealer.Seal(diskKey, diskKeyLocation(reg.WorkloadID, canonical))
		if err != nil {
			return fmt.Errorf("sealing disk key: %w", err)
		}
		created = true
		n, err := s.drawIncarnation()
		if err != nil {
			return err
		}
		of, err := s.sealIncarnation(n, reg.WorkloadID, canonical)
		if err != nil {
			return err
		}
		if err := s.insertWorkload(ctx, tx, reg, canonical, sealed, of, actor); err != nil {
			return err
		}
		return keepBoot(tx, reg.WorkloadID, boot)
	})
	if err != nil {
		return false, err
	}
	return created, nil
}

// registered says whether exactly this is registered; something else under
// the same id is an error.
func (s workloads) registered(tx *sql.Tx, id string, canonical []byte, diskKey secret.Bytes) (bool, error) {
	var have, sealed []byte
	var revoked *int64
	err := tx.QueryRow("SELECT registration, disk_key, revoked_at FROM workloads WHERE id = ?", id).Scan(&have, &sealed, &revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if revoked != nil || string(have) != string(canonical) {
		return false, &ConflictError{WorkloadID: id, Revoked: revoked != nil}
	}
	old, err := s.sealer.Open(sealed, diskKeyLocation(id, have))
	if err != nil {
		return false, fmt.Errorf("opening disk key of workload %s: %w", id, ErrTampered)
	}
	defer old.Wipe()
	if !old.Equal(diskKey) {
		return false, &ConflictError{WorkloadID: id}
	}
	return true, nil
}

func (s workloads) insertWorkload(ctx context.Context, tx *sql.Tx, reg kbs.Registration, canonical, sealed, incarnation []byte, actor string) error {
	if err := checkQuota(tx, reg.WorkloadID, "workloads"); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO workloads(id, tee, image, registration, disk_key, incarnation, registered_at, registered_by)
		VALUES(?,?,?,?,?,?,?,?)`, reg.WorkloadID, string(reg.ReferenceValues.TEE), reg.Image, canonical, sealed, incarnation, unixMilli(s.clock()), actor)
	if err != nil {
		return fmt.Errorf("storing registration: %w", err)
	}
	if err := s.claim(ctx, tx, reg, reg.WorkloadID); err != nil {
		return err
	}
	return s.log.append(tx, actor, "workload.register", reg.WorkloadID, "registration "+kbs.Sum384(canonical).String()+leaveOf(reg.ReferenceValues))
}

// claim makes all that a registration accepts row's own.
func (s workloads) claim(ctx context.Context, tx *sql.Tx, reg kbs.Registration, row string) error {
	identity, err := tuple.Of(reg.ReferenceValues)
	if err != nil {
		return err
	}
	for _, m := range reg.ReferenceValues.Measurements {
		if err := s.claimTuple(ctx, tx, m.LaunchDigest, identity, row); err != nil {
			return err
		}
	}
	return nil
}

// leaveOf is the advisories that a registration accepts open: whoever audits sees
// them without the registration, which may be gone.
func leaveOf(ref kbs.ReferenceValues) string {
	var allowed []string
	switch {
	case ref.TDX != nil:
		allowed = ref.TDX.AllowAdvisories
	case ref.SNP != nil:
		allowed = ref.SNP.AllowAdvisories
	}
	if len(allowed) == 0 {
		return ""
	}
	text := strings.Join(allowed, ", ")
	if len(text) > maxLeaveText {
		text = text[:maxLeaveText] + " and more"
	}
	return ", accepts open: " + text
}

// maxLeaveText bounds what a registration can write into the audit log, in
// bytes; advisories are ASCII.
const maxLeaveText = 300
