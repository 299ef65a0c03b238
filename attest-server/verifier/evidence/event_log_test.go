package evidence

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
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
	var again verifier.EventLogClaims
	if err := json.Unmarshal(b, &again); err != nil || len(again.Events) != maxEventClaims {
		t.Errorf("read again: %v", err)
	}
}

// FuzzEventLogClaims: a log of any bytes becomes claims that are bounded, go
// through JSON, and pass only with the registers they replay to.
func FuzzEventLogClaims(f *testing.F) {
	f.Add(eventlogtest.Build(eventlogtest.Real(f)))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		l := newEventLogClaims(b)
		text, err := json.Marshal(l)
		if err != nil || len(text) > 64<<10 || len(l.Events) > min(l.Count, maxEventClaims) {
			t.Fatalf("%d events of %d, %d bytes, %v", len(l.Events), l.Count, len(text), err)
		}
		r := verifier.Appraise(&verifier.Claims{TEE: kbs.TDX, TDX: &verifier.TDXClaims{RTMRs: l.RTMRs, EventLog: l}}, kbs.ReferenceValues{TEE: kbs.TDX}, verifier.Expectation{})
		i := slices.IndexFunc(r.Rules, func(x verifier.Rule) bool { return x.Rule == "event_log" })
		if i < 0 || r.Rules[i].Pass != (l.Problem == "") {
			t.Fatalf("%+v", r)
		}
	})
}

// TestAddEventLog: one log, to a TD's evidence alone, and an empty one counts.
func TestAddEventLog(t *testing.T) {
	raw := &Parsed{Evidence: kbs.Evidence{TEE: kbs.TDX}}
	if err := raw.AddEventLog(nil); err != nil || raw.eventLog == nil {
		t.Errorf("an empty log counts as none: %v", err)
	}
	if raw.AddEventLog([]byte{1}) == nil || len(raw.eventLog) != 0 {
		t.Error("a second log takes the place of the first")
	}
	for _, tee := range []kbs.TEE{kbs.SNP, kbs.Sample, ""} {
		if p := (&Parsed{Evidence: kbs.Evidence{TEE: tee}}); p.AddEventLog([]byte{1}) == nil {
			t.Errorf("an event log for %q", tee)
		}
	}
	if err := replay(nil, &verifier.Claims{TEE: kbs.Sample, SNP: &verifier.SNPClaims{}}); verifier.RuleOf(err) != "event_log" {
		t.Errorf("a log without a TD's claims: %v", err)
	}
}
