package verifier

import (
	"errors"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
)

// maxEventClaims bounds Events. Each is kept in the session's record, in about
// 160 bytes; a Linux TD boots with 40 to 100.
const maxEventClaims = 256

// AddEventLog adds the data of the ACPI table CCEL, of at most
// eventlog.MaxLogBytes, to a TD's Evidence without one. A log that cannot be
// read is no error here: rule event_log refuses it.
func (p *Parsed) AddEventLog(b []byte) error {
	if p.Evidence.TEE != kbs.TDX || p.eventLog != nil {
		return errors.New("event log for evidence that is no TD's, or has one: expected a quote alone")
	}
	p.eventLog = append([]byte{}, b...) // not nil, even if empty
	return nil
}

// replay puts the event log, if there is one, into the claims.
func (p *Parsed) replay(c *Claims) error {
	if p.eventLog == nil {
		return nil
	}
	if c.TDX == nil {
		return refuse("event_log", "the claims of a TD to hold the event log against", quote(c.TEE), "only a TD has RTMRs", nil)
	}
	c.TDX.EventLog = newEventLogClaims(p.eventLog)
	return nil
}

func newEventLogClaims(b []byte) *EventLogClaims {
	log, err := eventlog.Parse(b)
	if err != nil {
		return &EventLogClaims{Problem: err.Error()}
	}
	c := &EventLogClaims{}
	for i, d := range log.Replay() {
		c.RTMRs[i] = d[:]
	}
	for _, e := range log.Events {
		if !e.Extends() {
			continue
		}
		if c.Count++; c.Count <= maxEventClaims {
			c.Events = append(c.Events, EventClaim{Register: e.Register, Type: e.Type.String(), Digest: e.Digest[:]})
		}
	}
	return c
}
