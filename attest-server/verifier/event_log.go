package verifier

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
)

// EventLogClaims is an event log that came with a quote. Nothing signs it: the
// digests are as good as the quote if rule event_log passed, the types never.
type EventLogClaims struct {
	Problem string       `json:"problem,omitempty"` // why it cannot be read
	RTMRs   [4]Hex       `json:"rtmrs"`             // what it replays to
	Count   int          `json:"count"`             // events that extend a register
	Events  []EventClaim `json:"events"`            // the first of them, without data
}

// EventClaim is one event that extended a register.
type EventClaim struct {
	Register int    `json:"register"` // RTMR 0 to 3
	Type     string `json:"type"`     // TCG name, or the number
	Digest   Hex    `json:"digest"`
}

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

// eventLog wants a log that came along to replay to the quote's RTMRs, all
// four. It adds nothing to what these prove, but explains them: an owner must
// not be shown the events of another boot.
func (r *rules) eventLog(c *TDXClaims) {
	l := c.EventLog
	if l == nil {
		return
	}
	if l.Problem != "" {
		r.add("event_log", false, "a TCG crypto agile event log with SHA-384 digests", l.Problem,
			"send the data of the ACPI table CCEL as the firmware left it, or no event log")
		return
	}
	for i, quoted := range c.RTMRs {
		if len(quoted) != len(kbs.Digest{}) || !slices.Equal(l.RTMRs[i], quoted) {
			r.add("event_log", false, fmt.Sprintf("RTMR%d %v as quoted", i, quoted), fmt.Sprintf("RTMR%d %v after replay", i, l.RTMRs[i]),
				fmt.Sprintf("the event log is of another boot, altered, or lacks what was extended into RTMR%d later: send one taken with the quote, or none", i))
			return
		}
	}
	r.add("event_log", true, "a log that replays to the quoted RTMRs", fmt.Sprintf("%d events that do", l.Count), "")
}
