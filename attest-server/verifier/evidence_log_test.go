package verifier

import (
	"encoding/json"
	"testing"

	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog/eventlogtest"
)

// TestEventLogClaimsBounded: as many events as a log may have, with digests
// that no event should have, are few enough claims, which JSON can carry.
func TestEventLogClaimsBounded(t *testing.T) {
	c := newEventLogClaims(eventlogtest.Build(make([]eventlog.Event, eventlog.MaxEvents)))
	b, err := json.Marshal(c)
	if err != nil || c.Problem != "" || c.Count != eventlog.MaxEvents || len(c.Events) != maxEventClaims || len(b) > 64<<10 {
		t.Errorf("%d events, %d listed, %d bytes, %q, %v", c.Count, len(c.Events), len(b), c.Problem, err)
	}
	var again EventLogClaims
	if err := json.Unmarshal(b, &again); err != nil || len(again.Events) != maxEventClaims {
		t.Errorf("read again: %v", err)
	}
}

// FuzzEventLogClaims: a log of any bytes becomes claims that are bounded, go
// through JSON, and pass only with the registers they replay to.
func FuzzEventLogClaims(f *testing.F) {
	f.Add(eventlogtest.Build(realEvents(f)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newEventLogClaims(b)
		text, err := json.Marshal(l)
		if err != nil || len(text) > 64<<10 || len(l.Events) > min(l.Count, maxEventClaims) {
			t.Fatalf("%d events of %d, %d bytes, %v", len(l.Events), l.Count, len(text), err)
		}
		var r rules
		r.eventLog(&TDXClaims{RTMRs: l.RTMRs, EventLog: l})
		if len(r) != 1 || r[0].Pass != (l.Problem == "") {
			t.Fatalf("%+v", r)
		}
	})
}
