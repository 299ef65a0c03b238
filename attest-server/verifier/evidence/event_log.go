package evidence

import (
	"fmt"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
)

// maxEventClaims bounds Events. Each is kept in the session's record, in about
// 160 bytes; a Linux TD boots with 40 to 100.
const maxEventClaims = 256

// replay puts the event log into the claims.
func replay(log []byte, c *verifier.Claims) error {
	if c.TDX == nil {
		return verifier.Refuse("event_log", "the claims of a TD to hold the event log against", fmt.Sprintf("%q", string(c.TEE)), "only a TD has RTMRs", nil)
	}
	c.TDX.EventLog = newEventLogClaims(log)
	return nil
}

func newEventLogClaims(b []byte) *verifier.EventLogClaims {
	log, err := eventlog.Parse(b)
	if err != nil {
		return &verifier.EventLogClaims{Problem: err.Error()}
	}
	c := &verifier.EventLogClaims{}
	for i, d := range log.Replay() {
		c.RTMRs[i] = d[:]
	}
	for _, e := range log.Events {
		if !e.Extends() {
			continue
		}
		if c.Count++; c.Count <= maxEventClaims {
			c.Events = append(c.Events, verifier.EventClaim{Register: e.Register, Type: e.Type.String(), Digest: e.Digest[:]})
		}
	}
	return c
}
