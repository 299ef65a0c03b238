package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// maxMachines bounds those remembered. The one seen longest ago is forgotten
// first; one that is denied never is.
const maxMachines = 1 << 16

// machineObject begins what the audit log calls a machine: nothing that a tenant
// could own.
const machineObject = "/machine/"

// machines are those whose Evidence was authentic.
type machines struct{ *core }

// machineOf is the machine that authentic Evidence came from, without an ID if it
// hides which.
func machineOf(r kbs.SessionRecord) (m kbs.Machine) {
	var c struct {
		SNP *struct {
			ChipID  string     `json:"chip_id"`
			Product string     `json:"product"`
			Silicon string     `json:"silicon"`
			TCB     kbs.SNPTCB `json:"reported_tcb"`
		} `json:"snp"`
		TDX *struct {
			PPID string `json:"ppid"`
		} `json:"tdx"`
	}
	if json.Unmarshal(r.Result.Claims, &c) != nil {
		return kbs.Machine{}
	}
	m = kbs.Machine{TEE: r.Result.TEE, FirstSeen: r.At, LastSeen: r.At, Advisories: []string{}}
	switch {
	case c.SNP != nil:
		m.ID, m.Product, m.Silicon, m.TCB = c.SNP.ChipID, c.SNP.Product, c.SNP.Silicon, &c.SNP.TCB
	case c.TDX != nil:
		m.ID = c.TDX.PPID
	}
	for _, rule := range r.Result.Rules {
		if id, of := strings.CutPrefix(rule.Rule, "advisory:"); of && !slices.Contains(m.Advisories, id) {
			m.Advisories = append(m.Advisories, id)
		}
	}
	if strings.Trim(m.ID, "0") == "" {
		return kbs.Machine{}
	}
	return m
}

// saw notes a machine, and the workload that it was granted, if it was.
func saw(tx *sql.Tx, m kbs.Machine, r kbs.SessionRecord) error {
	if m.ID == "" {
		return nil
	}
	before, err := readMachine(tx.QueryRow(selectMachine+" WHERE id = ?", m.ID))
	known := err == nil
	switch {
	case errors.Is(err, sql.ErrNoRows):
		m.Highest = m.TCB
	case err != nil:
		return err
	default:
		m.FirstSeen, m.Highest = before.FirstSeen, before.Highest
		if m.TCB != nil && m.Highest != nil {
			highest := m.TCB.Max(*m.Highest)
			m.Highest = &highest
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(`INSERT INTO machines(id, seen, machine) VALUES(?, ?, ?)
		ON CONFLICT(id) DO UPDATE SET seen = excluded.seen, machine = excluded.machine`, m.ID, unixMilli(m.LastSeen), b); err != nil {
		return fmt.Errorf("noting machine: %w", err)
	}
	if r.Granted {
		row, err := rowOf(context.Background(), tx, kbs.VersionName(r.WorkloadID, max(r.Version, 1)))
		if err != nil {
			return err
		}
		if _, err := tx.Exec(`INSERT INTO machine_grants(machine, workload, at, session) VALUES(?, ?, ?, ?)
			ON CONFLICT(machine, workload) DO UPDATE SET at = excluded.at, session = excluded.session`, m.ID, row, unixMilli(r.At), r.Session); err != nil {
			return fmt.Errorf("noting machine: %w", err)
		}
	}
	if known {
		return nil
	}
	return forgetMachines(tx)
}

// forgetMachines keeps the table bounded.
func forgetMachines(tx *sql.Tx) error {
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM machines").Scan(&n); err != nil || n <= maxMachines {
		return err
	}
	_, err := tx.Exec("DELETE FROM machines WHERE id IN (SELECT id FROM machines WHERE denied IS NULL ORDER BY seen LIMIT ?)", n-maxMachines)
	return err
}

const selectMachine = "SELECT machine, denied FROM machines"

func readMachine(r row) (m kbs.Machine, err error) {
	var b []byte
	var denied *int64
	if err := r.Scan(&b, &denied); err != nil {
		return m, err
	}
	return machineFrom(b, denied)
}

func machineFrom(b []byte, denied *int64) (m kbs.Machine, err error) {
	if err := kbs.UnmarshalStrict(b, &m); err != nil {
		return m, fmt.Errorf("reading machine: %w: %w", ErrTampered, err)
	}
	m.DeniedAt = fromNullMilli(denied)
	return m, nil
}

// Machine is what is known of one, or ErrNotFound.
func (s machines) Machine(ctx context.Context, id string) (kbs.Machine, error) {
	m, err := readMachine(s.db.QueryRowContext(ctx, selectMachine+" WHERE id = ?", id))
	if errors.Is(err, sql.ErrNoRows) {
		return m, fmt.Errorf("machine %s: %w", id, ErrNotFound)
	}
	return m, err
}

// Machines is one page of machines, ordered by id.
func (s machines) Machines(ctx context.Context, after string, limit int) (kbs.MachineList, error) {
	all, err := list(ctx, s.db, readMachine, selectMachine+" WHERE id > ? ORDER BY id LIMIT ?", after, limit+1)
	if err != nil {
		return kbs.MachineList{}, fmt.Errorf("listing machines: %w", err)
	}
	page := kbs.MachineList{Machines: all}
	if len(all) > limit {
		page.Machines, page.Next = all[:limit], all[limit-1].ID
	}
	return page, nil
}

// DeclareIncident denies a machine, lists what it was granted, and stages a new
// DiskKey for each of that which it may still open, in one transaction: what is
// released after it is not released to that machine, so it has none of them.
func (s machines) DeclareIncident(ctx context.Context, id, actor string) (i kbs.Incident, err error) {
	if s.sealer == nil {
		return i, fmt.Errorf("declaring an incident: %w", ErrLocked)
	}
	err = s.write(ctx, func(tx *sql.Tx) error {
		i = kbs.Incident{Granted: []kbs.MachineGrant{}}
		m, err := readMachine(tx.QueryRow(selectMachine+" WHERE id = ?", id))
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("machine %s: %w", id, ErrNotFound)
		}
		if err != nil {
			return err
		}
		if i.Machine = m; m.DeniedAt == nil {
			now := fromMilli(unixMilli(s.clock()))
			i.Machine.DeniedAt = &now
			if _, err := tx.Exec("UPDATE machines SET denied = ? WHERE id = ?", unixMilli(now), id); err != nil {
				return err
			}
		}
		if i.Granted, err = granted(tx, id, *i.Machine.DeniedAt); err != nil {
			return err
		}
		if err := s.planRotations(tx, i.Granted, *i.Machine.DeniedAt, actor); err != nil || m.DeniedAt != nil {
			return err
		}
		return s.log.append(tx, actor, "machine.incident", machineObject+id, fmt.Sprintf("it was granted %d workloads", len(i.Granted)))
	})
	if err != nil {
		return kbs.Incident{}, fmt.Errorf("declaring an incident: %w", err)
	}
	return i, nil
}

// granted is what a machine was granted, the latest first.
//
// A key that was staged while a session of the machine's could live is not safe
// from it: that session could have fetched it, too.
func granted(tx *sql.Tx, id string, denied time.Time) ([]kbs.MachineGrant, error) {
	rows, err := tx.Query(`SELECT g.workload, g.at, g.session, w.id IS NULL OR w.revoked_at IS NOT NULL OR coalesce(w.drawn_at, 0) >= ?2 OR coalesce(w.drawn_at, 0) > g.at + ?3
		FROM machine_grants g LEFT JOIN workloads w ON w.id = g.workload WHERE g.machine = ?1 ORDER BY g.at DESC, g.workload`,
		id, unixMilli(denied), refusedKept.Milliseconds())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	all := []kbs.MachineGrant{}
	for rows.Next() {
		var g kbs.MachineGrant
		var at int64
		if err := rows.Scan(&g.WorkloadID, &at, &g.Session, &g.Settled); err != nil {
			return nil, err
		}
		g.At = fromMilli(at)
		all = append(all, g)
	}
	return all, rows.Err()
}

// planRotations stages a DiskKey for every workload that is not settled and can be
// rotated: `ccrun workload rotate` goes on from there.
func (s machines) planRotations(tx *sql.Tx, all []kbs.MachineGrant, denied time.Time, actor string) error {
	for i := range all {
		g := &all[i]
		if g.Settled {
			continue
		}
		w, err := readRotating(tx, g.WorkloadID)
		if err != nil {
			return err
		}
		reg, _, err := s.registrations.read(w.canonical)
		switch {
		case err != nil:
			return fmt.Errorf("reading workload %s: %w: %w", g.WorkloadID, ErrTampered, err)
		case reg.Type != kbs.TypeNative: // its guests know one DiskKey
			continue
		case w.rotation != nil:
			g.Rotation, g.DrawnBefore = *w.rotation, fromMilli(*w.stagedAt).Before(denied)
			continue
		}
		r, err := rotations(s).draw()
		if err != nil {
			return err
		}
		err = rotations(s).insertStaged(tx, g.WorkloadID, w.canonical, r, actor)
		r.Wipe()
		if err != nil {
			return err
		}
		g.Rotation = r.ID
	}
	return nil
}

// LiftIncident accepts a machine again.
func (s machines) LiftIncident(ctx context.Context, id, actor string) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		res, err := tx.Exec("UPDATE machines SET denied = NULL WHERE id = ? AND denied IS NOT NULL", id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, fmt.Errorf("machine %s under an incident: %w", id, ErrNotFound))
		}
		return s.log.append(tx, actor, "machine.lift", machineObject+id, "")
	})
	if err != nil {
		return fmt.Errorf("lifting an incident: %w", err)
	}
	return nil
}

// machineDenied refuses a session whose machine was denied since it attested.
func machineDenied(tx *sql.Tx, session string) error {
	var id string
	var at int64
	err := tx.QueryRow("SELECT m.id, m.denied FROM sessions s JOIN machines m ON m.id = s.machine WHERE s.number = ? AND m.denied IS NOT NULL", session).Scan(&id, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("machine %s is denied since %s: %w", id, fromMilli(at).UTC().Format(time.RFC3339), ErrRevoked)
}
