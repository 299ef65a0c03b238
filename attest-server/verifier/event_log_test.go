package verifier_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog/eventlogtest"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// realEvents are those of a TD on Google's cloud, two that extend nothing, and
// one of the guest's own.
func realEvents(t testing.TB) []eventlog.Event {
	t.Helper()
	all := eventlogtest.Real(t)
	all = append(all, eventlog.Event{Register: 2, Type: eventlog.NoAction, Digest: kbs.Digest{1}}, eventlog.Event{Register: eventlog.MRTD, Digest: kbs.Digest{2}})
	return append(all, eventlog.Event{Register: 3, Type: eventlog.EventTag, Digest: kbs.Digest{3}, Data: []byte("the guest's own")})
}

// cocoTDX is the JSON of CoCo's tdx attester; a nil log is null.
func cocoTDX(t testing.TB, quote []byte, log any) []byte {
	t.Helper()
	if b, ok := log.([]byte); ok {
		log = base64.StdEncoding.EncodeToString(b)
	}
	b, err := json.Marshal(map[string]any{"cc_eventlog": log, "quote": base64.StdEncoding.EncodeToString(quote)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// logged is a quote of a TD that booted as the events say, its verifier, and
// what to appraise it by.
func logged(t testing.TB, events []eventlog.Event) ([]byte, verifier.Verifier, kbs.ReferenceValues, verifier.Expectation) {
	t.Helper()
	n := vendortest.NewIntel(t)
	log, err := eventlog.Parse(eventlogtest.Build(events))
	if err != nil {
		t.Fatal(err)
	}
	data := kbs.ReportData{7}
	body := verifiertest.Body(data[:])
	rtmrs := map[string]string{}
	for i, d := range log.Replay() {
		copy(body[328+48*i:], d[:])
		rtmrs[fmt.Sprint(i)] = d.String()
	}
	v, err := tdx.New(tdx.Options{Root: n.Root, Collateral: vendortest.Collaterals{n.Publish(t)}})
	if err != nil {
		t.Fatal(err)
	}
	ref := kbs.ReferenceValues{TEE: kbs.TDX, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{0x3e}}}, TDX: &kbs.TDXRules{RTMRs: rtmrs}}
	return n.Quote(t, body), v, ref, verifier.Expectation{ReportData: data, At: verifiertest.Time, Advisories: verifiertest.Advisories(t)}
}

// TestEventLog: a log that came along must replay to the quote's RTMRs; one
// change to the log at a time, and nothing but rule event_log refuses it.
func TestEventLog(t *testing.T) {
	events := realEvents(t)
	good := eventlogtest.Build(events)
	quote, v, ref, want := logged(t, events)
	inRegister := func(r int) int {
		return slices.IndexFunc(events, func(e eventlog.Event) bool { return e.Extends() && e.Register == r })
	}
	edited := func(edit func(l []eventlog.Event) []eventlog.Event) []byte {
		return eventlogtest.Build(edit(slices.Clone(events)))
	}
	flip := func(r int) []byte {
		return edited(func(l []eventlog.Event) []eventlog.Event { l[inRegister(r)].Digest[47] ^= 1; return l })
	}
	for _, tt := range []struct {
		name, rule, names string // names: what rule event_log must say
		log               any
	}{
		{"none", "", "", nil},
		{"empty text, as good as none", "", "", ""},
		{"as it is", "", "", good},
		{"filled", "", "", append(bytes.Clone(good), bytes.Repeat([]byte{0xff}, 4096)...)},
		{"filled to 256 KiB", "", "", append(bytes.Clone(good), make([]byte, 256<<10-len(good))...)},
		{"another type, which nothing binds", "", "", edited(func(l []eventlog.Event) []eventlog.Event { l[inRegister(2)].Type = 0x77; return l })},
		{"RTMR0", "event_log", "RTMR0", flip(0)},
		{"RTMR1", "event_log", "RTMR1", flip(1)},
		{"RTMR2", "event_log", "RTMR2", flip(2)},
		{"RTMR3", "event_log", "RTMR3", flip(3)},
		{"last event left out", "event_log", "RTMR3", edited(func(l []eventlog.Event) []eventlog.Event { return l[:len(l)-1] })},
		{"event added", "event_log", "RTMR1", edited(func(l []eventlog.Event) []eventlog.Event { return append(l, eventlog.Event{Register: 1, Type: 4}) })},
		{"event in another register", "event_log", "RTMR1", edited(func(l []eventlog.Event) []eventlog.Event { l[inRegister(2)].Register = 1; return l })},
		{"event that extends nothing any more", "event_log", "RTMR1", edited(func(l []eventlog.Event) []eventlog.Event { l[inRegister(1)].Type = eventlog.NoAction; return l })},
		{"order", "event_log", "RTMR0", edited(func(l []eventlog.Event) []eventlog.Event {
			i := inRegister(0)
			j := i + 1 + slices.IndexFunc(l[i+1:], func(e eventlog.Event) bool { return e.Register == 0 })
			l[i], l[j] = l[j], l[i]
			return l
		})},
		{"no events", "event_log", "RTMR0", eventlogtest.Build(nil)},
		{"cut", "event_log", "CCEL", good[:len(good)-1]},
		{"text", "event_log", "CCEL", []byte("INIT sha384/00")},
		{"more than 1 MiB", "event_log", "CCEL", append(bytes.Clone(good), make([]byte, eventlog.MaxLogBytes)...)},
		{"no base64", "evidence_format", "", "!"},
		{"a number", "evidence_format", "", 7},
		{"more than evidence may have", "evidence_format", "", make([]byte, evidence.MaxBytes)},
	} {
		p, err := evidence.Parse(cocoTDX(t, quote, tt.log))
		if err != nil {
			if verifier.RuleOf(err) != tt.rule {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		c, err := p.Verify(context.Background(), v, want.At)
		if err != nil {
			t.Fatal(err)
		}
		r := verifier.Appraise(c, ref, want)
		if verifiertest.Failed(r) != tt.rule || r.OK() != (tt.rule == "") {
			t.Errorf("%s: failed rules %q, expected %q", tt.name, verifiertest.Failed(r), tt.rule)
		}
		i := slices.IndexFunc(r.Rules, func(x verifier.Rule) bool { return x.Rule == "event_log" })
		if there := tt.log != nil && tt.log != ""; (i >= 0) != there || (c.TDX.EventLog != nil) != there {
			t.Errorf("%s: rule %d, claims %+v", tt.name, i, c.TDX.EventLog)
			continue
		}
		if tt.rule == "event_log" && (!strings.Contains(r.Rules[i].Hint, tt.names) || r.Rules[i].Expected == r.Rules[i].Got) {
			t.Errorf("%s: %+v, expected to read of %s", tt.name, r.Rules[i], tt.names)
		}
		if tt.rule == "" && i >= 0 && r.Rules[i].Hint != "" {
			t.Errorf("%s: passed with hint %q", tt.name, r.Rules[i].Hint)
		}
	}
}

// TestEventLogClaims: the claims list what extends a register, in order and
// without data; the EAR counts the rule for what was booted.
func TestEventLogClaims(t *testing.T) {
	events := realEvents(t)
	quote, v, ref, want := logged(t, events)
	p, err := evidence.Parse(quote)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AddEventLog(eventlogtest.Build(events)); err != nil {
		t.Fatal(err)
	}
	c, err := p.Verify(context.Background(), v, want.At)
	if err != nil {
		t.Fatal(err)
	}
	var expected []verifier.EventClaim
	for _, e := range events {
		if e.Extends() {
			expected = append(expected, verifier.EventClaim{e.Register, e.Type.String(), e.Digest[:]})
		}
	}
	l := c.TDX.EventLog
	if l.Count != len(expected) || len(expected) < 40 || !slices.EqualFunc(l.Events, expected, func(a, b verifier.EventClaim) bool {
		return a.Register == b.Register && a.Type == b.Type && bytes.Equal(a.Digest, b.Digest)
	}) {
		t.Errorf("%d events: %+v", l.Count, l.Events)
	}
	if b, err := json.Marshal(c); err != nil || bytes.Contains(b, []byte(base64.StdEncoding.EncodeToString([]byte("the guest's own")))) || !bytes.Contains(b, []byte(`"event_log":{"rtmrs":["`)) {
		t.Errorf("%s, %v", b, err)
	}
	for _, broken := range []bool{false, true} {
		if broken {
			l.RTMRs[2][0]++
		}
		wire, err := verifier.Appraise(c, ref, want).Wire()
		if err != nil {
			t.Fatal(err)
		}
		ear, err := verifier.NewEAR(wire, verifier.VerifierID{"d", "b"}, "policy", verifiertest.Time)
		if err != nil || (ear.Submods["cpu0"].Vector[verifier.Executables] == 96) != broken {
			t.Errorf("broken %v: %+v, %v", broken, ear.Submods["cpu0"].Vector, err)
		}
	}
}
