package attestserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog/eventlogtest"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// The trustee dialect end to end for each name of a TEE, under test roots.

// oneCollateral is a CollateralSource.
type oneCollateral struct{ c *tdx.Collateral }

func (o oneCollateral) Collateral(context.Context, string, string) ([]*tdx.Collateral, error) {
	return []*tdx.Collateral{o.c}, nil
}

// withTDX lets the server trust a self-made Intel.
func withTDX(t testing.TB, n *verifiertest.Intel) func(*Config) {
	t.Helper()
	c, err := tdx.ParseCollateral(n.Collateral(t))
	if err != nil {
		t.Fatal(err)
	}
	v, err := tdx.New(tdx.Options{Root: n.Root, Collateral: oneCollateral{c}})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.Verifiers[kbs.TDX] = v }
}

// trusteeMachine is a guest of one TEE: what it sends, and what it is
// registered with.
type trusteeMachine struct {
	tee      string
	evidence func(t *testing.T, rd [64]byte) []byte
	ref      kbs.ReferenceValues
}

func measured(tee kbs.TEE, first byte) kbs.ReferenceValues {
	return kbs.ReferenceValues{TEE: tee, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{first}}}}
}

// tdLog is the event log of the TDs here; bodyOf is a TD report of one that
// booted so.
func tdLog() []eventlog.Event {
	return []eventlog.Event{{Register: 0, Type: 1, Digest: kbs.Digest{1}}, {Register: 1, Type: 2, Digest: kbs.Digest{2}}, {Register: 2, Type: 5, Digest: kbs.Digest{3}}}
}

func bodyOf(t *testing.T, events []eventlog.Event, rd []byte) ([]byte, map[string]string) {
	t.Helper()
	l, err := eventlog.Parse(eventlogtest.Build(events))
	if err != nil {
		t.Fatal(err)
	}
	body, rtmrs := verifiertest.Body(rd), map[string]string{}
	for i, d := range l.Replay() {
		copy(body[328+48*i:], d[:])
		rtmrs[string(rune('0'+i))] = d.String()
	}
	return body, rtmrs
}

func cocoTDX(t *testing.T, quote, log []byte) []byte {
	t.Helper()
	e := map[string]any{"quote": base64.StdEncoding.EncodeToString(quote), "cc_eventlog": nil}
	if log != nil {
		e["cc_eventlog"] = base64.StdEncoding.EncodeToString(log)
	}
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// trusteeMachines makes one of each, the Azure ones with PCR 4 of 44 00...
func trusteeMachines(t *testing.T, n *verifiertest.Intel) map[string]*trusteeMachine {
	t.Helper()
	vtpm := func(rd [64]byte) *verifiertest.VTPM {
		a := &verifiertest.VTPM{Key: verifiertest.RSAKeys()[3], UserData: rd[:48]}
		a.PCRs[4] = [32]byte{0x44}
		return a
	}
	pcrs := &kbs.VTPMRules{PCRs: map[string]string{"4": "44" + strings.Repeat("0", 62)}}
	_, rtmrs := bodyOf(t, tdLog(), nil)
	machines := map[string]*trusteeMachine{
		"tdx": {tee: "tdx", ref: measured(kbs.TDX, 0x3e), evidence: func(t *testing.T, rd [64]byte) []byte {
			body, _ := bodyOf(t, tdLog(), rd[:])
			return cocoTDX(t, n.Quote(t, body), eventlogtest.Build(tdLog()))
		}},
		"az-tdx-vtpm": {tee: "az-tdx-vtpm", ref: measured(kbs.TDX, 0x3e), evidence: func(t *testing.T, rd [64]byte) []byte {
			a := vtpm(rd)
			digest := sha256.Sum256(a.VarData(t))
			return a.EvidenceTDX(t, n.Quote(t, verifiertest.Body(digest[:])))
		}},
		"az-snp-vtpm": {tee: "az-snp-vtpm", ref: measured(kbs.SNP, 5), evidence: func(t *testing.T, rd [64]byte) []byte {
			a := vtpm(rd)
			attester, vcek, _ := platform(t)
			l, err := sample.NewLaunch(kbs.LaunchDigest{5})
			if err != nil {
				t.Fatal(err)
			}
			digest := sha256.Sum256(a.VarData(t))
			var want [64]byte
			copy(want[:], digest[:])
			ev, err := attester.Sign(want, l)
			if err != nil {
				t.Fatal(err)
			}
			return a.EvidenceSNP(t, ev.Report, vcek)
		}},
	}
	machines["tdx"].ref.TDX = &kbs.TDXRules{RTMRs: rtmrs}
	machines["az-tdx-vtpm"].ref.TDX = &kbs.TDXRules{RTMRs: verifiertest.RTMRs()}
	machines["az-tdx-vtpm"].ref.VTPM, machines["az-snp-vtpm"].ref.VTPM = pcrs, pcrs
	return machines
}

// registerAs registers w with reference values, as trustee.
func (r *rig) registerAs(id string, ref kbs.ReferenceValues) {
	r.t.Helper()
	req := request(id, 0)
	req.Registration.Type, req.Registration.ReferenceValues = kbs.TypeTrustee, ref
	req.Registration.IdentityDigest, req.Registration.FooterDigest = kbs.Digest{}, kbs.Digest{}
	if _, err := r.admin.Register(r.t.Context(), req); err != nil {
		r.t.Fatal(err)
	}
}

// guestOf is CoCo's client in machine m; edit changes its evidence.
func (r *rig) guestOf(t *testing.T, m *trusteeMachine, edit func([]byte) []byte) *cocoClient {
	c := newCocoClient(t, r.http.URL, r.http.Client(), "P-256")
	c.tee = m.tee
	c.evidence = func(rd [64]byte) any {
		b := m.evidence(t, rd)
		if edit != nil {
			b = edit(b)
		}
		return json.RawMessage(b)
	}
	return c
}

// TestTrusteeTEEs: each kind of TEE gets its key over HTTP, and after one
// change to its evidence or registration, none, for the reason named.
func TestTrusteeTEEs(t *testing.T) {
	n := verifiertest.NewIntel(t, rigTime)
	for name, m := range trusteeMachines(t, n) {
		registered := newRig(t, withSNP(t, session.Trustee), withTDX(t, n))
		registered.registerAs("w1", m.ref)
		for _, x := range trusteeChanges(t, name) {
			t.Run(name+", "+x.name, func(t *testing.T) {
				r := registered
				if x.ref != nil {
					ref := m.ref
					x.ref(&ref)
					r = newRig(t, withSNP(t, session.Trustee), withTDX(t, n))
					r.registerAs("w1", ref)
				}
				k, err := r.guestOf(t, m, x.evidence).resource(diskKeyOf + "w1")
				if x.rule == "" {
					if err != nil || string(k) != diskKeyText+"w1" {
						t.Fatalf("%q, %v", k, err)
					}
					return
				}
				var e *errorInformation
				if !errors.As(err, &e) || e.kind() != "AttestationError" || k != nil {
					t.Fatalf("%q, %v, expected rule %s to fail", k, err, x.rule)
				}
				_, number, _ := strings.Cut(e.Detail, "ccrun explain ")
				r.checkExplained([]byte(`{"session":"`+number+`"}`), x.rule)
			})
		}
	}
}

type trusteeChange struct {
	name, rule string
	evidence   func([]byte) []byte
	ref        func(*kbs.ReferenceValues)
}

func trusteeChanges(t *testing.T, name string) []trusteeChange {
	t.Helper()
	member := func(edit func(e map[string]any)) func([]byte) []byte {
		return func(b []byte) []byte {
			var e map[string]any
			if err := json.Unmarshal(b, &e); err != nil {
				t.Fatal(err)
			}
			edit(e)
			b, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	flip := func(name string, at int, enc *base64.Encoding) func([]byte) []byte {
		return member(func(e map[string]any) {
			b, err := enc.DecodeString(e[name].(string))
			if err != nil {
				t.Fatal(err)
			}
			b[at] ^= 1
			e[name] = enc.EncodeToString(b)
		})
	}
	pcr := func(i int) func([]byte) []byte {
		return member(func(e map[string]any) {
			pcrs := e["tpm_quote"].(map[string]any)["pcrs"].([]any)
			pcrs[i] = strings.Repeat("0", 63) + "1"
		})
	}
	otherPCR := func(ref *kbs.ReferenceValues) {
		ref.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": strings.Repeat("5", 64)}}
	}
	all := []trusteeChange{{name: "as it is"}}
	switch name {
	case "tdx":
		return append(all,
			trusteeChange{name: "no event log", evidence: member(func(e map[string]any) { e["cc_eventlog"] = nil })},
			trusteeChange{name: "an event log of a MiB", evidence: member(func(e map[string]any) {
				log := eventlogtest.Build(tdLog())
				e["cc_eventlog"] = base64.StdEncoding.EncodeToString(append(log, bytes.Repeat([]byte{0xff}, eventlog.MaxLogBytes-len(log))...))
			})},
			trusteeChange{name: "another event log", rule: "event_log", evidence: member(func(e map[string]any) {
				e["cc_eventlog"] = base64.StdEncoding.EncodeToString(eventlogtest.Build(tdLog()[:2]))
			})},
			trusteeChange{name: "MRTD changed", rule: "signature", evidence: flip("quote", 48+136, base64.StdEncoding)},
			trusteeChange{name: "report data changed", rule: "signature", evidence: flip("quote", 48+520, base64.StdEncoding)},
			trusteeChange{name: "an RTMR registered otherwise", rule: "rtmr2", ref: func(ref *kbs.ReferenceValues) {
				rtmrs := maps.Clone(ref.TDX.RTMRs)
				rtmrs["2"] = strings.Repeat("9", 96)
				ref.TDX = &kbs.TDXRules{RTMRs: rtmrs}
			}},
			trusteeChange{name: "another MRTD registered", rule: "registered", ref: func(ref *kbs.ReferenceValues) { *ref = withDigest(*ref, 0x77) }})
	case "az-tdx-vtpm":
		return append(all,
			trusteeChange{name: "MRTD changed", rule: "signature", evidence: flip("td_quote", 48+136, base64.URLEncoding)},
			trusteeChange{name: "vTPM's key changed", rule: "vtpm_binding", evidence: flip("hcl_report", 32+1184+20+30, base64.URLEncoding)},
			trusteeChange{name: "PCR changed", rule: "vtpm_pcrs", evidence: pcr(4)},
			trusteeChange{name: "PCR registered otherwise", rule: "pcr4", ref: otherPCR})
	default:
		return append(all,
			trusteeChange{name: "measurement changed", rule: "signature", evidence: flip("hcl_report", 32+0x90, base64.URLEncoding)},
			trusteeChange{name: "vTPM's key changed", rule: "vtpm_binding", evidence: flip("hcl_report", 32+1184+20+30, base64.URLEncoding)},
			trusteeChange{name: "VCEK changed, which the server has", evidence: flip("vcek", 100, base64.URLEncoding)},
			trusteeChange{name: "PCR changed", rule: "vtpm_pcrs", evidence: pcr(11)},
			trusteeChange{name: "PCR registered otherwise", rule: "pcr4", ref: otherPCR})
	}
}

func withDigest(ref kbs.ReferenceValues, first byte) kbs.ReferenceValues {
	ref.Measurements = []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{first}}}
	return ref
}

// TestTrusteeAttestBound: only an open session of a TD may send more than a
// MiB, and no session more than its event log can need.
func TestTrusteeAttestBound(t *testing.T) {
	n := verifiertest.NewIntel(t, rigTime)
	r := newRig(t, withSNP(t, session.Trustee), withTDX(t, n))
	for _, x := range []struct {
		tee    string // session open; empty: none
		size   int
		status int
	}{
		{"", maxForeignBody, 401}, {"", maxForeignBody + 1, 401},
		{"snp", maxForeignBody, 401}, {"snp", maxForeignBody + 1, 413},
		{"tdx", maxForeignBody + 1, 401}, {"az-tdx-vtpm", maxForeignBody + 1, 401},
		{"tdx", evidence.MaxBytes + maxForeignMore, 401}, {"tdx", evidence.MaxBytes + maxForeignMore + 1, 413},
	} {
		c := newCocoClient(t, r.http.URL, r.http.Client(), "P-256")
		if x.tee != "" {
			if _, err := c.post("/kbs/v0/auth", map[string]any{"version": "0.4.0", "tee": x.tee, "extra-params": ""}); err != nil {
				t.Fatal(err)
			}
		}
		_, err := c.post("/kbs/v0/attest", bytes.Repeat([]byte(" "), x.size))
		var e *errorInformation
		if !errors.As(err, &e) || e.status != x.status {
			t.Errorf("session %q, %d bytes: %v, expected status %d", x.tee, x.size, err, x.status)
		}
	}
}

// TestTrusteeVectors: real evidence over HTTP is authentic and what was
// registered, but bound to another session, and for that alone refused.
func TestTrusteeVectors(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	bundle, err := endorsements.LoadBundle(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	open := func(vendor string, numbers ...string) (rules []string) {
		for _, n := range numbers {
			rules = append(rules, "advisory:"+vendor+n)
		}
		return rules
	}
	for _, x := range []struct {
		file, tee, at string
		also          []string // rules that fail besides report_data
	}{
		{"snp-milan-v3.coco-evidence.json", "snp", "2026-05-06T00:00:00Z", open("AMD-SB-", "3020", "3023", "3027", "3030")},
		{"snp-bergamo-v3.coco-evidence.json", "snp", "2026-05-06T00:00:00Z", open("AMD-SB-", "3020")},
		{"snp-genoa-v5.coco-evidence.json", "snp", "2026-05-06T00:00:00Z", nil},
		{"snp-turin-v5.coco-evidence.json", "snp", "2026-05-06T00:00:00Z", open("AMD-SB-", "3020", "3027")},
		{"snp-milan-v2-debug.coco-evidence.json", "snp", "2026-05-06T00:00:00Z", append(open("AMD-SB-", "3005", "3019", "3020", "3023", "3027", "3030"), "debug")},
		{"azsnp-milan-v3-a.original-evidence.json", "az-snp-vtpm", "2026-05-06T00:00:00Z", open("AMD-SB-", "3020", "3023", "3027", "3030")},
		{"azsnp-genoa-v3.original-evidence.json", "az-snp-vtpm", "2026-05-06T00:00:00Z", open("AMD-SB-", "3020", "3027")},
		{"tdx-v4.coco-evidence.json", "tdx", "2025-06-20T10:16:03Z", open("INTEL-SA-", "01397")},
		{"tdx-v5-tdx15.coco-evidence.json", "tdx", "2026-02-02T14:49:26Z", open("INTEL-SA-", "01397")},
		{"tdx-v4-debug.coco-evidence.json", "tdx", "2023-06-19T08:42:58Z", append(open("INTEL-SA-", "01397"), "debug")},
	} {
		t.Run(x.file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join(dir, x.file))
			if err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, x.at)
			if err != nil {
				t.Fatal(err)
			}
			snp, err := snp.New(snp.Options{Endorsements: bundle})
			if err != nil {
				t.Fatal(err)
			}
			tdx, err := tdx.New(tdx.Options{Collateral: bundle})
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, func(c *Config) {
				c.Dialects = []session.Dialect{session.Trustee}
				c.Verifiers[kbs.SNP], c.Verifiers[kbs.TDX] = snp, tdx
			})
			p, err := evidence.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			claims, err := p.Verify(t.Context(), verifier.ByTEE{kbs.SNP: snp, kbs.TDX: tdx}, at)
			if err != nil {
				t.Fatal(err)
			}
			r.registerAs("w1", referenceOf(claims))
			r.clock.advance(at.Sub(r.clock.Now()))
			_, err = r.guestOf(t, &trusteeMachine{tee: x.tee, evidence: func(*testing.T, [64]byte) []byte { return b }}, nil).resource(diskKeyOf + "w1")
			var e *errorInformation
			if !errors.As(err, &e) || e.kind() != "AttestationError" {
				t.Fatalf("%v, expected AttestationError", err)
			}
			_, number, _ := strings.Cut(e.Detail, "ccrun explain ")
			rec, err := r.admin.Session(t.Context(), number)
			if err != nil {
				t.Fatal(err)
			}
			var failed []string
			for _, rule := range rec.Result.Rules {
				if !rule.Pass && rule.Rule != "appraisal" { // which sums up the others
					failed = append(failed, rule.Rule)
				}
			}
			slices.Sort(failed)
			if want := slices.Sorted(slices.Values(append(x.also, "report_data"))); !slices.Equal(failed, want) {
				t.Errorf("failed rules %v, expected %v", failed, want)
			}
		})
	}
}

// referenceOf registers what the claims have.
func referenceOf(c *verifier.Claims) kbs.ReferenceValues {
	ref := kbs.ReferenceValues{TEE: c.TEE, Measurements: []kbs.Measurement{{LaunchDigest: c.LaunchDigest}}}
	if c.TDX != nil {
		ref.TDX = &kbs.TDXRules{RTMRs: map[string]string{}}
		for i, d := range c.TDX.RTMRs {
			ref.TDX.RTMRs[string(rune('0'+i))] = d.String()
		}
	}
	if c.VTPM != nil {
		ref.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": c.VTPM.PCRs[4].String()}}
	}
	return ref
}
