package store

import (
	"context"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Sighting is when a workload was last seen on a machine.
type Sighting struct {
	Machine  string // empty: its Evidence hides which
	Workload string // empty: nobody's
	At       time.Time
	Session  string
	// Record is nil once the session is forgotten; that it was granted is not.
	Record *kbs.SessionRecord
	// Known is what is known of the machine, of all tenants' guests together:
	// nil for a tenant.
	Known *kbs.Machine
}

// FleetQuery selects sightings.
type FleetQuery struct {
	Tenant string // as kbs.Owns has it; empty: all
	// Before and BeforeSession are those of the last sighting of the page before.
	Before        time.Time
	BeforeSession string
}

// grantedWorkload is whose version a row of machine_grants names.
const grantedWorkload = "CASE WHEN workload LIKE '%@%' THEN rtrim(rtrim(workload, '0123456789'), '@') ELSE workload END"

// Fleet is at most limit sightings, latest first: of each workload on each
// machine the last one. Evidence that was not authentic says nothing of any
// machine, so it counts for none. Where machines hide which they are, all that
// was seen counts.
//
// Grants to machines outlive the records of sessions, but also a tenant, and the
// next one of its name inherits nothing: they are the operator's to see.
func (s machines) Fleet(ctx context.Context, q FleetQuery, limit int) ([]Sighting, error) {
	before := int64(1<<63 - 1)
	if !q.Before.IsZero() {
		before = unixMilli(q.Before)
	}
	all, err := list(ctx, s.db, scanSighting, `SELECT p.machine, p.workload, p.at, p.number, s.record, s.releases, s.refused, m.machine, m.denied
		FROM (SELECT machine, workload, at, number, row_number() OVER (PARTITION BY machine, workload ORDER BY at DESC, number DESC) AS nth
			FROM (SELECT machine, workload, at, number FROM sessions WHERE authentic = 1 AND (?1 = '' OR `+owned("workload", "?1")+`)
				UNION ALL SELECT machine, `+grantedWorkload+`, at, session FROM machine_grants WHERE ?1 = '') AS seen) AS p
		LEFT JOIN sessions s ON s.number = p.number
		LEFT JOIN machines m ON m.id = p.machine AND ?1 = ''
		WHERE (p.nth = 1 OR p.machine = '') AND (p.at, p.number) < (?2, ?3)
		ORDER BY p.at DESC, p.number DESC LIMIT ?4`,
		q.Tenant, before, q.BeforeSession, limit)
	if err != nil {
		return nil, fmt.Errorf("listing what was seen on machines: %w", err)
	}
	return all, nil
}

func scanSighting(r row) (x Sighting, err error) {
	var at int64
	var releases, denied *int64
	var refused *string
	var record, machine []byte
	if err := r.Scan(&x.Machine, &x.Workload, &at, &x.Session, &record, &releases, &refused, &machine, &denied); err != nil {
		return x, err
	}
	x.At = fromMilli(at)
	if record != nil && releases != nil {
		rec, err := recordOf(record, *releases, refused)
		if err != nil {
			return x, fmt.Errorf("session %s: %w", x.Session, err)
		}
		x.Record = &rec
	}
	if machine != nil {
		m, err := machineFrom(machine, denied)
		if err != nil {
			return x, err
		}
		x.Known = &m
	}
	return x, nil
}
