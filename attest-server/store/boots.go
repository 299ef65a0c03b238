package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// maxAgents bounds the agents' segments that are kept for one tenant, some MiB
// each.
const maxAgents = 16

// boots are what workloads boot besides firmware.
type boots struct{ *core }

func keepBoot(tx *sql.Tx, id string, b *kbs.Boot) error {
	if b == nil {
		return nil
	}
	_, err := tx.Exec("INSERT INTO boots(workload, identity, agent, initrd) VALUES(?,?,?,?) ON CONFLICT(workload) DO NOTHING", id, b.Identity, b.Agent[:], b.Initrd[:])
	if err != nil {
		return fmt.Errorf("storing what workload %s boots: %w", id, err)
	}
	return nil
}

const selectBoots = `SELECT w.id, w.registration, w.revoked_at, w.ends_at, b.identity, b.agent, b.initrd
	FROM workloads w LEFT JOIN boots b ON b.workload = w.id `

func (s boots) scan(r row) (b kbs.Bootable, err error) {
	var canonical, identity, agent, initrd []byte
	var revoked, ends *int64
	if err := r.Scan(&b.WorkloadID, &canonical, &revoked, &ends, &identity, &agent, &initrd); err != nil {
		return b, err
	}
	id := b.WorkloadID
	b.Revoked = revoked != nil || ends != nil && *ends <= unixMilli(s.clock())
	if b.Registration, b.RegistrationDigest, err = s.registrations.read(canonical); err != nil {
		return b, fmt.Errorf("reading workload %s: %w: %w", id, ErrTampered, err)
	}
	if identity == nil {
		return b, nil
	}
	b.Boot = &kbs.Boot{Identity: identity}
	if copy(b.Boot.Agent[:], agent) != len(agent) || copy(b.Boot.Initrd[:], initrd) != len(initrd) {
		return b, fmt.Errorf("reading what workload %s boots: %w", id, ErrTampered)
	}
	return b, nil
}

// Bootable is the registration that ID or ID@N names and what it boots, or
// ErrNotFound.
func (s boots) Bootable(ctx context.Context, name string) (kbs.Bootable, error) {
	row, err := rowOf(ctx, s.db, name)
	if err != nil {
		return kbs.Bootable{}, err
	}
	b, err := s.scan(s.db.QueryRowContext(ctx, selectBoots+"WHERE w.id = ?", row))
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("workload %s: %w", name, ErrNotFound)
	}
	return b, err
}

// Boots is a page of at most limit registrations whose ids follow after, of a
// tenant or of all if it is empty.
func (s boots) Boots(ctx context.Context, tenant, after string, limit int) (kbs.BootList, error) {
	all, err := list(ctx, s.db, s.scan, selectBoots+"WHERE w.id > ?1 AND (?2 = '' OR "+owned("w.id", "?2")+") ORDER BY w.id LIMIT ?3", after, tenant, limit+1)
	if err != nil {
		return kbs.BootList{}, fmt.Errorf("listing what workloads boot: %w", err)
	}
	first, next := page(all, limit, func(b kbs.Bootable) string { return b.WorkloadID })
	return kbs.BootList{Boots: first, Next: next}, nil
}

// PutAgent keeps an agent's segment for a tenant. Where there are as many as may
// be, those go that none of its workloads boots.
func (s boots) PutAgent(ctx context.Context, tenant string, segment []byte) error {
	digest := kbs.Sum384(segment)
	err := s.write(ctx, func(tx *sql.Tx) error {
		var there bool
		var n int64
		err := tx.QueryRow("SELECT EXISTS(SELECT 1 FROM agents WHERE tenant = ?1 AND digest = ?2), (SELECT count(*) FROM agents WHERE tenant = ?1)", tenant, digest[:]).Scan(&there, &n)
		if err != nil || there {
			return err
		}
		if n >= maxAgents {
			res, err := tx.Exec("DELETE FROM agents WHERE tenant = ? AND NOT EXISTS(SELECT 1 FROM boots WHERE boots.agent = agents.digest)", tenant)
			if err = changed(res, err); errors.Is(err, ErrNotFound) {
				return &QuotaError{Tenant: tenant, What: "agents", Max: maxAgents}
			} else if err != nil {
				return err
			}
		}
		_, err = tx.Exec("INSERT INTO agents(tenant, digest, at, segment) VALUES(?,?,?,?)", tenant, digest[:], unixMilli(s.clock()), segment)
		return err
	})
	if err != nil {
		return fmt.Errorf("storing agent: %w", err)
	}
	return nil
}

// Agent is the segment with that digest that the tenant has, or anybody if it is
// empty; else ErrNotFound.
func (s boots) Agent(ctx context.Context, tenant string, digest kbs.Digest) (segment []byte, err error) {
	err = s.db.QueryRowContext(ctx, "SELECT segment FROM agents WHERE digest = ?1 AND (?2 = '' OR tenant = ?2) LIMIT 1", digest[:], tenant).Scan(&segment)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("agent %s: %w", digest, ErrNotFound)
	}
	return segment, err
}
