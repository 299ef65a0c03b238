package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog/eventlogtest"
)

func digest(t *testing.T, text string) (d kbs.Digest) {
	t.Helper()
	if n, err := hex.Decode(d[:], []byte(text)); err != nil || n != len(d) {
		t.Fatalf("%q: %v", text, err)
	}
	return d
}

// TestReplayReal: the registers that the TD's quote had.
func TestReplayReal(t *testing.T) {
	l, err := eventlog.Parse(eventlogtest.Build(eventlogtest.Real(t)))
	if err != nil {
		t.Fatal(err)
	}
	quoted := [4]kbs.Digest{
		digest(t, "3fa2f61f395b7f5feefb4ec2df61297f109ad8abcd6410c1b7df60f21f37b19297fc35e544039c7e1edece752afd17f6"),
		digest(t, "f62dbc072bd5d3f3438b7b35c39a727f5aea2ffc2473f43723953f530daf62504f0a7944aa62c41a86e8a878c2b122c1"),
		digest(t, "4969684dc87381fc3b3134176c8d8806eaf0a901859f5f70cfae8d17714b46c10a8de219048c9fc09f11f381a6fbe7c1"),
	}
	if got := l.Replay(); len(l.Events) != 43 || got != quoted {
		t.Errorf("%d events, %v", len(l.Events), got)
	}
	if err := l.Check(quoted); err != nil {
		t.Error(err)
	}
	quoted[1][5]++
	if err := l.Check(quoted); err == nil || !strings.Contains(err.Error(), "RTMR1") || strings.Contains(err.Error(), "RTMR2") {
		t.Errorf("another RTMR1: %v", err)
	}
}

// TestReplayEveryDigestCounts: no event can be changed, dropped or moved.
func TestReplayEveryDigestCounts(t *testing.T) {
	events := eventlogtest.Real(t)
	want := replay(t, events)
	for i := range events {
		if !events[i].Extends() {
			continue
		}
		changed := slices.Clone(events)
		changed[i].Digest[47] ^= 1
		if replay(t, changed) == want || replay(t, slices.Delete(slices.Clone(events), i, i+1)) == want {
			t.Errorf("event %d does not count", i)
		}
		changed[i] = events[i]
		changed[i].Register = (events[i].Register + 1) % 4
		if replay(t, changed) == want {
			t.Errorf("event %d may be in another register", i)
		}
	}
	extra := append(slices.Clone(events), eventlog.Event{Register: 0, Type: eventlog.NoAction}, eventlog.Event{Register: eventlog.MRTD, Type: 1})
	if replay(t, extra) != want {
		t.Error("events that extend nothing count")
	}
}

func replay(t *testing.T, events []eventlog.Event) [4]kbs.Digest {
	t.Helper()
	l, err := eventlog.Parse(eventlogtest.Build(events))
	if err != nil {
		t.Fatal(err)
	}
	return l.Replay()
}

func TestParseKeepsData(t *testing.T) {
	data := []byte("Calling EFI Application from Boot Option")
	e := eventlog.Event{Register: 1, Type: eventlog.Action, Digest: kbs.Sum384(data), Data: data}
	for _, fill := range []int{0, 1, 4, 1000} {
		for _, with := range []byte{0, 0xff} {
			b := append(eventlogtest.Build([]eventlog.Event{e, {Register: 3, Type: 9}}), bytes.Repeat([]byte{with}, fill)...)
			l, err := eventlog.Parse(b)
			if err != nil || len(l.Events) != 2 || !bytes.Equal(l.Events[0].Data, data) || !l.Events[0].DataHashed() || l.Events[1].DataHashed() {
				t.Errorf("filled with %d of %#x: %+v, %v", fill, with, l, err)
			}
		}
	}
	if got := e.Type.String() + " " + eventlog.Type(0x77).String(); got != "EV_EFI_ACTION event type 0x77" {
		t.Error(got)
	}
}

func TestParseRefuses(t *testing.T) {
	event := eventlog.Event{Register: 1, Type: eventlog.Action, Data: []byte("data")}
	good := eventlogtest.Build([]eventlog.Event{event})
	const spec, first = 32, 32 + 33 // offsets of header event data and first event
	put := func(at int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], v); return b }
	}
	for name, change := range map[string]func([]byte) []byte{
		"empty":                 func(b []byte) []byte { return nil },
		"too large":             func(b []byte) []byte { return append(b, make([]byte, eventlog.MaxLogBytes)...) },
		"header type":           put(4, 4),
		"header longer":         put(28, 34),
		"header shorter":        put(28, 32),
		"header huge":           put(28, 0xffffffff),
		"signature":             put(spec, 1),
		"half a signature":      put(spec, 0),
		"no algorithms":         put(spec+24, 0),
		"two algorithms":        put(spec+24, 2),
		"too many algorithms":   put(spec+24, 9),
		"algorithm SHA-256":     put(spec+28, 32<<16|0xb),
		"SHA-384 of 32 bytes":   put(spec+28, 32<<16|0xc),
		"vendor information":    func(b []byte) []byte { b[spec+32] = 1; return b },
		"register 5":            put(first, 5),
		"no digest":             put(first+8, 0),
		"two digests":           put(first+8, 2),
		"huge digest count":     put(first+8, 0xffffffff),
		"SHA-256 alone":         func([]byte) []byte { return severalAlgorithms(nil, []uint16{0xb}) },
		"SHA-384 twice":         func([]byte) []byte { return severalAlgorithms(nil, []uint16{0xc, 0xc}) },
		"SHA-256 twice":         func([]byte) []byte { return severalAlgorithms(nil, []uint16{0xb, 0xc, 0xb}) },
		"more than declared":    func([]byte) []byte { return severalAlgorithms(nil, []uint16{0xb, 0xc, 0xd, 0x12, 0xc}) },
		"not one":               func([]byte) []byte { return severalAlgorithms(nil, nil) },
		"not declared":          func([]byte) []byte { return severalAlgorithms(nil, []uint16{0xc, 4}) },
		"unknown algorithm":     func(b []byte) []byte { b[first+12] = 0xb; return b },
		"data beyond the end":   put(first+62, 5),
		"huge data":             put(first+62, 0xffffffff),
		"cut":                   func(b []byte) []byte { return b[:len(b)-1] },
		"one byte more":         func(b []byte) []byte { return append(b, 7) },
		"text after the log":    func(b []byte) []byte { return append(b, "INIT sha384/00"...) },
		"text after filling":    func(b []byte) []byte { return append(append(b, make([]byte, 100)...), 'x') },
		"event after filling":   func(b []byte) []byte { return append(append(b, bytes.Repeat([]byte{0xff}, 9)...), good[first:]...) },
		"one event too many":    func([]byte) []byte { return eventlogtest.Build(make([]eventlog.Event, eventlog.MaxEvents+1)) },
		"zeros and another end": func(b []byte) []byte { return append(b, 0, 0, 0xff) },
	} {
		if l, err := eventlog.Parse(change(bytes.Clone(good))); !errors.Is(err, eventlog.ErrFormat) {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	for n := range len(good) {
		if _, err := eventlog.Parse(good[:n]); err == nil && n != first {
			t.Errorf("the first %d bytes are a log", n)
		}
	}
}

// digestBytes are the sizes of SHA-256, SHA-384, SHA-512 and SM3.
func digestBytes(alg uint16) int {
	return map[uint16]int{4: 20, 0xb: 32, 0xc: 48, 0xd: 64, 0x12: 32}[alg]
}

// severalAlgorithms is a log whose header declares the four algorithms that
// CoCo's agent does, and whose one event has digests of algs, filled with the
// algorithm's number but the SHA-384 one.
func severalAlgorithms(sha384 []byte, algs []uint16) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2)
	spec = le.AppendUint32(spec, 4)
	for _, alg := range []uint16{0xb, 0xc, 0xd, 0x12} {
		spec = le.AppendUint16(le.AppendUint16(spec, alg), uint16(digestBytes(alg)))
	}
	spec = append(spec, 0)
	b := append(le.AppendUint32(le.AppendUint32(nil, 1), uint32(eventlog.NoAction)), make([]byte, 20)...)
	b = append(le.AppendUint32(b, uint32(len(spec))), spec...)
	b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, 3), uint32(eventlog.EventTag)), uint32(len(algs)))
	for _, alg := range algs {
		digest := bytes.Repeat([]byte{byte(alg)}, digestBytes(alg))
		if alg == 0xc && sha384 != nil {
			digest = sha384
		}
		b = append(le.AppendUint16(b, alg), digest...)
	}
	return append(le.AppendUint32(b, 4), "data"...)
}

// TestParseSeveralAlgorithms: an event may have fewer digests than the header
// declares, as CoCo's agent writes it; the SHA-384 one counts, wherever it is.
func TestParseSeveralAlgorithms(t *testing.T) {
	want := kbs.Sum384([]byte("an event"))
	for _, algs := range [][]uint16{{0xc}, {0xb, 0xc}, {0xc, 0xd}, {0xb, 0xc, 0xd, 0x12}, {0x12, 0xd, 0xc, 0xb}} {
		l, err := eventlog.Parse(severalAlgorithms(want[:], algs))
		if err != nil || len(l.Events) != 1 || l.Events[0].Digest != want || l.Events[0].Register != 2 || string(l.Events[0].Data) != "data" {
			t.Errorf("%#x: %+v, %v", algs, l, err)
			continue
		}
		if got := l.Replay(); got[2] != eventlog.Extend(kbs.Digest{}, want) {
			t.Errorf("%#x: RTMR2 replays to %v", algs, got[2])
		}
	}
}

// agentLog is what CoCo's agent sends where the firmware left no log: its own
// header, with no signature and SHA-384 and SM3 declared, its events with one
// digest each, and eight bytes of 0xff (guest-components, attester/src/utils.rs
// at 8246e5e).
func agentLog(events ...[]byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(nil, 0), uint32(eventlog.NoAction))
	b = le.AppendUint32(append(b, make([]byte, 20)...), 37)
	b = le.AppendUint32(append(b, make([]byte, 24)...), 2)
	b = append(b, 0x0c, 0, 0x30, 0, 0x12, 0, 0x20, 0, 0)
	for _, text := range events {
		data := le.AppendUint32(le.AppendUint32(nil, 0x4141454c), uint32(len(text)))
		data = append(data, text...)
		sum := kbs.Sum384(data)
		b = le.AppendUint32(le.AppendUint32(le.AppendUint32(b, 4), uint32(eventlog.EventTag)), 1)
		b = append(le.AppendUint16(b, 0xc), sum[:]...)
		b = append(le.AppendUint32(b, uint32(len(data))), data...)
	}
	return append(b, bytes.Repeat([]byte{0xff}, 8)...)
}

func TestParseAgentLog(t *testing.T) {
	l, err := eventlog.Parse(agentLog([]byte("domain operation one"), []byte("domain operation two")))
	if err != nil || len(l.Events) != 2 {
		t.Fatalf("%+v, %v", l, err)
	}
	var want kbs.Digest
	for _, e := range l.Events {
		if want = eventlog.Extend(want, e.Digest); !e.DataHashed() || e.Type != eventlog.EventTag {
			t.Errorf("event %+v", e)
		}
	}
	if got := l.Replay(); got != [4]kbs.Digest{3: want} {
		t.Errorf("replays to %v", got)
	}
}

// FuzzParse: what parses, parses again after being written, and replays.
func FuzzParse(f *testing.F) {
	f.Add(eventlogtest.Build(nil))
	f.Add(eventlogtest.Build([]eventlog.Event{{Register: 1, Type: eventlog.Action, Data: []byte("data")}, {Register: eventlog.MRTD, Type: eventlog.NoAction}}))
	f.Add(severalAlgorithms(nil, []uint16{0xb, 0xc}))
	f.Add(agentLog([]byte("domain operation content")))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := eventlog.Parse(b)
		if err != nil {
			return
		}
		again, err := eventlog.Parse(eventlogtest.Build(l.Events))
		if err != nil || len(again.Events) != len(l.Events) || again.Replay() != l.Replay() {
			t.Errorf("%+v, again %+v, %v", l, again, err)
		}
	})
}
