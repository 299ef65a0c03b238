package kbs

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"
)

const (
	// MaxAgentBytes bounds an agent's segment of an initrd.
	MaxAgentBytes = 12 << 20
	// MaxAgentBody bounds a request or answer that has one.
	MaxAgentBody = MaxAgentBytes*4/3 + 1024
	// MaxUpdates bounds the workloads of one UpdateRequest.
	MaxUpdates = 50
	// MaxUpdateBody bounds an UpdateRequest: 64 measurements of each.
	MaxUpdateBody = MaxUpdates * 64 << 10
)

// AgentSegment is the agent's segment of an initrd, PUT and GET
// /v1/agents/{digest}.
type AgentSegment struct {
	Segment []byte `json:"segment"`
}

// Bootable is a registration with what it boots: the answer to
// GET /v1/workloads/{id}/boot.
type Bootable struct {
	// WorkloadID is what an Update is to call it: ID@N for a version that was
	// replaced.
	WorkloadID         string       `json:"workload_id"`
	Registration       Registration `json:"registration"`
	RegistrationDigest Digest       `json:"registration_digest"` // what an Update expects
	Revoked            bool         `json:"revoked,omitempty"`   // or ended
	// Others are the workload's other versions that are not over, where the newest
	// was asked for by the workload's id.
	Others []string `json:"others,omitempty"`
	Boot   *Boot    `json:"boot,omitempty"` // nil: registered without
}

// BootList is one page of GET /v1/boots, ordered by id, as WorkloadList is.
type BootList struct {
	Boots []Bootable `json:"boots"`
	Next  string     `json:"next,omitempty"`
}

// Update adds measurements to a registration that is still the one expected.
type Update struct {
	WorkloadID string        `json:"workload_id"`
	Expect     Digest        `json:"expect"` // of the registration
	Add        []Measurement `json:"add"`
	// OthersNotAfter ends the validity of all measurements but those in Add,
	// where it does not end before; nil: it stays.
	OthersNotAfter *time.Time `json:"others_not_after,omitempty"`
}

// UpdateRequest is the body of POST /v1/measurements.
type UpdateRequest struct {
	Updates []Update `json:"updates"`
}

// UpdateResult is what became of one Update. A Problem says that nothing did.
type UpdateResult struct {
	WorkloadID         string   `json:"workload_id"`
	RegistrationDigest Digest   `json:"registration_digest,omitzero"`
	Changed            bool     `json:"changed"`
	Problem            *Problem `json:"problem,omitempty"`
}

// UpdateAnswer is the answer to an UpdateRequest, in its order.
type UpdateAnswer struct {
	Results []UpdateResult `json:"results"`
}

// Apply is r after u, at a time: measurements that are over by then are dropped.
// changed is false if r stays as it is.
func (u Update) Apply(r Registration, at time.Time) (after Registration, changed bool) {
	var kept []Measurement
	for _, m := range r.ReferenceValues.Measurements {
		added := slices.ContainsFunc(u.Add, func(a Measurement) bool { return a.LaunchDigest == m.LaunchDigest })
		switch {
		case added || m.NotAfter != nil && m.NotAfter.Before(at):
			continue
		case u.OthersNotAfter != nil && (m.NotAfter == nil || u.OthersNotAfter.Before(*m.NotAfter)):
			m.NotAfter = u.OthersNotAfter
		}
		kept = append(kept, m)
	}
	after = r
	after.ReferenceValues.Measurements = append(kept, u.Add...)
	before, err := Canonical(r.ReferenceValues.Measurements)
	now, err2 := Canonical(after.ReferenceValues.Measurements)
	if err == nil && err2 == nil && (string(before) == string(now) || u.OthersNotAfter == nil && u.has(r)) {
		return r, false
	}
	return after, true
}

// has says whether r has all of u.Add, as it is there.
func (u Update) has(r Registration) bool {
	for _, a := range u.Add {
		want, err := Canonical(a)
		if err != nil || !slices.ContainsFunc(r.ReferenceValues.Measurements, func(m Measurement) bool {
			have, err := Canonical(m)
			return err == nil && string(have) == string(want)
		}) {
			return false
		}
	}
	return true
}

// Bootable is a workload's registration and what it boots.
func (c *AdminClient) Bootable(ctx context.Context, id string) (*Bootable, error) {
	var b Bootable
	if err := c.do(ctx, http.MethodGet, workloadPath(id)+"/boot", nil, &b); err != nil {
		return nil, err
	}
	return &b, nil
}

// maxBootList bounds a page of boots, whose identities may have 64 KiB each.
const maxBootList = 16 << 20

// Boots is the page of all workloads that follows the id after.
func (c *AdminClient) Boots(ctx context.Context, after string) (*BootList, error) {
	var page BootList
	q := url.Values{"limit": {strconv.Itoa(MaxUpdates)}}
	if after != "" {
		q.Set("after", after)
	}
	if err := c.doLimit(ctx, http.MethodGet, "/v1/boots?"+q.Encode(), nil, &page, maxBootList); err != nil {
		return nil, err
	}
	if page.Next != "" && page.Next <= after {
		return nil, errors.New("listing workloads: the server's pages do not advance")
	}
	return &page, nil
}

// Agent is the agent's segment with that digest.
func (c *AdminClient) Agent(ctx context.Context, d Digest) ([]byte, error) {
	var a AgentSegment
	if err := c.doLimit(ctx, http.MethodGet, "/v1/agents/"+d.String(), nil, &a, MaxAgentBody); err != nil {
		return nil, err
	}
	if Sum384(a.Segment) != d {
		return nil, errors.New("the server's answer is another agent than was asked for")
	}
	return a.Segment, nil
}

// PutAgent lets the server keep the agent's segment of an initrd, if it does not
// have it.
func (c *AdminClient) PutAgent(ctx context.Context, segment []byte) error {
	if c.do(ctx, http.MethodHead, "/v1/agents/"+Sum384(segment).String(), nil, nil) == nil {
		return nil
	}
	return c.do(ctx, http.MethodPut, "/v1/agents/"+Sum384(segment).String(), AgentSegment{segment}, nil)
}

// Update adds measurements to at most MaxUpdates workloads, each by itself.
func (c *AdminClient) Update(ctx context.Context, updates []Update) ([]UpdateResult, error) {
	var a UpdateAnswer
	if err := c.doLimit(ctx, http.MethodPost, "/v1/measurements", UpdateRequest{updates}, &a, maxAdminAnswer); err != nil {
		return nil, err
	}
	if len(a.Results) != len(updates) {
		return nil, errors.New("the server's answer is not about what was sent")
	}
	return a.Results, nil
}
