package kbs

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Machine is what the server remembers of a machine whose Evidence was
// authentic.
type Machine struct {
	ID         string     `json:"id"` // CHIP_ID, or a TD's PPID: hex
	TEE        TEE        `json:"tee"`
	Product    string     `json:"product,omitempty"`
	Silicon    string     `json:"silicon,omitempty"` // as advisories name it
	TCB        *SNPTCB    `json:"tcb,omitempty"`     // reported last
	Highest    *SNPTCB    `json:"highest,omitempty"` // of each component, ever
	Advisories []string   `json:"advisories"`        // open when it was last seen
	FirstSeen  time.Time  `json:"first_seen"`
	LastSeen   time.Time  `json:"last_seen"`
	DeniedAt   *time.Time `json:"denied_at,omitempty"` // by an incident
}

// WentBack says whether the machine reports less than it once did.
func (m Machine) WentBack() bool {
	return m.TCB != nil && m.Highest != nil && m.TCB.Max(*m.Highest) != *m.TCB
}

// MachineList is one page of machines, ordered by id: GET /v1/machines.
type MachineList struct {
	Machines []Machine `json:"machines"`
	Next     string    `json:"next,omitempty"` // for ?after=; empty: the last page
}

// Incident is a machine that is denied, and what it was granted: the answer to
// POST /v1/machines/{id}/incident.
type Incident struct {
	Machine Machine        `json:"machine"`
	Granted []MachineGrant `json:"granted"`
}

// MachineGrant is a workload whose secrets a machine could fetch.
type MachineGrant struct {
	WorkloadID string    `json:"workload_id"`
	At         time.Time `json:"at"`      // last
	Session    string    `json:"session"` // of then
	// Settled is set if the workload is revoked or gone, or its DiskKey was drawn
	// since, so that the machine cannot have it.
	Settled bool `json:"settled"`
	// Rotation is staged, for `ccrun workload rotate` to end; empty: the workload
	// is settled, or of a dialect whose DiskKeys cannot be rotated.
	Rotation string `json:"rotation,omitempty"`
	// DrawnBefore says that Rotation was under way when the machine could still
	// have had its key: it is to be ended, and the incident declared again.
	DrawnBefore bool `json:"drawn_before,omitempty"`
}

// Machines is every machine seen, with that advisory open if one is named.
func (c *AdminClient) Machines(ctx context.Context, advisory string) ([]Machine, error) {
	var all []Machine
	for after := ""; ; {
		var page MachineList
		q := url.Values{"after": {after}, "advisory": {advisory}}
		if err := c.do(ctx, http.MethodGet, "/v1/machines?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Machines...)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// maxIncident bounds an incident: a fleet's grants on one machine.
const maxIncident = 64 << 20

// DeclareIncident denies a machine from now on, and stages a new DiskKey for what
// it was granted. Doing it again shows how far that is settled.
func (c *AdminClient) DeclareIncident(ctx context.Context, machine string) (*Incident, error) {
	var i Incident
	if err := c.doLimit(ctx, http.MethodPost, incidentPath(machine), nil, &i, maxIncident); err != nil {
		return nil, err
	}
	return &i, nil
}

// LiftIncident accepts the machine again.
func (c *AdminClient) LiftIncident(ctx context.Context, machine string) error {
	return c.do(ctx, http.MethodDelete, incidentPath(machine), nil, nil)
}

func incidentPath(machine string) string {
	return "/v1/machines/" + url.PathEscape(machine) + "/incident"
}
