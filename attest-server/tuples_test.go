package attestserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog/eventlogtest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// twins are two guests of the trustee dialect with one launch digest.
func twins(t *testing.T, n *verifiertest.Intel) map[string][2]*trusteeMachine {
	t.Helper()
	td := func(kernel byte) *trusteeMachine {
		events := append(tdLog(), eventlog.Event{Register: 1, Type: 2, Digest: kbs.Digest{kernel}})
		m := &trusteeMachine{tee: "tdx", ref: measured(kbs.TDX, 0x3e), evidence: func(t *testing.T, rd [64]byte) []byte {
			body, _ := bodyOf(t, events, rd[:])
			return cocoTDX(t, n.Quote(t, body), eventlogtest.Build(events))
		}}
		_, rtmrs := bodyOf(t, events, nil)
		m.ref.TDX = &kbs.TDXRules{RTMRs: rtmrs}
		return m
	}
	azure := func(kernel byte) *trusteeMachine {
		m := &trusteeMachine{tee: "az-snp-vtpm", ref: measured(kbs.SNP, 5), evidence: func(t *testing.T, rd [64]byte) []byte {
			a := &verifiertest.VTPM{Key: verifiertest.RSAKeys()[3], UserData: rd[:48]}
			a.PCRs[4], a.PCRs[9] = [32]byte{0x44}, [32]byte{kernel}
			digest := sha256.Sum256(a.VarData(t))
			var want [64]byte
			copy(want[:], digest[:])
			attester, vcek, _ := platform(t)
			return a.EvidenceSNP(t, launched(t, attester, 5, nil, want).Report, vcek)
		}}
		m.ref.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": "44" + strings.Repeat("0", 62), "9": fmt.Sprintf("%02x", kernel) + strings.Repeat("0", 62)}}
		return m
	}
	pod := func(initData byte) *trusteeMachine {
		hostData := sha256.Sum256([]byte{initData})
		m := &trusteeMachine{tee: "snp", ref: measured(kbs.SNP, 6), evidence: func(t *testing.T, rd [64]byte) []byte {
			attester, vcek, _ := platform(t)
			j, err := json.Marshal(cocoSNPEvidence(launched(t, attester, 6, hostData[:], rd), []map[string]any{{"cert_type": "VCEK", "data": ints(vcek)}}))
			if err != nil {
				t.Fatal(err)
			}
			return j
		}}
		m.ref.SNP = &kbs.SNPRules{HostData: hex.EncodeToString(hostData[:])}
		return m
	}
	return map[string][2]*trusteeMachine{
		"TDs of one firmware":        {td(1), td(2)},
		"Azure guests":               {azure(1), azure(2)},
		"pods with other init-data":  {pod(1), pod(2)},
		"a pod with and one without": {pod(1), {tee: "snp", ref: measured(kbs.SNP, 6), evidence: plainPod}},
	}
}

func plainPod(t *testing.T, rd [64]byte) []byte {
	attester, vcek, _ := platform(t)
	j, err := json.Marshal(cocoSNPEvidence(launched(t, attester, 6, nil, rd), []map[string]any{{"cert_type": "VCEK", "data": ints(vcek)}}))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func launched(t *testing.T, a *sample.Attester, digest byte, hostData []byte, rd kbs.ReportData) kbs.Evidence {
	t.Helper()
	l, err := sample.NewLaunch(kbs.LaunchDigest{digest})
	if err != nil {
		t.Fatal(err)
	}
	copy(l.HostData[:], hostData)
	ev, err := a.Sign(rd, l)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// TestTwins: two guests with one launch digest live on one server, and each gets
// its own key and not the other's.
func TestTwins(t *testing.T) {
	n := verifiertest.NewIntel(t, rigTime)
	for name, pair := range twins(t, n) {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, withSNP(t, session.Trustee), withTDX(t, n))
			for i, m := range pair {
				r.registerAs(fmt.Sprint("w", i), m.ref)
				r.registerAs(fmt.Sprint("w", i), m.ref) // twice does no harm
			}
			for i, m := range pair {
				own, other := fmt.Sprint("w", i), fmt.Sprint("w", 1-i)
				if k, err := r.guestOf(t, m, nil).resource(diskKeyOf + own); err != nil || string(k) != diskKeyText+own {
					t.Errorf("%s: %q, %v", own, k, err)
				}
				if k, err := r.guestOf(t, m, nil).resource(diskKeyOf + other); err == nil {
					t.Errorf("%s got the key of %s: %q", own, other, k)
				}
			}
			_, err := r.tryRegister("w2", pair[1].ref)
			var p *kbs.ProblemError
			if !errors.As(err, &p) || p.Code != kbs.CodeDuplicateDigest || !strings.Contains(p.Detail, "w1") {
				t.Errorf("registered again under another id: %v", err)
			}
		})
	}
}

func (r *rig) tryRegister(id string, ref kbs.ReferenceValues) (bool, error) {
	return r.tryRegisterBy(r.admin, id, ref)
}

func (r *rig) tryRegisterBy(by kbs.AdminClient, id string, ref kbs.ReferenceValues) (bool, error) {
	req := request(id, 0)
	req.Registration.Type, req.Registration.ReferenceValues = kbs.TypeTrustee, ref
	req.Registration.IdentityDigest, req.Registration.FooterDigest = kbs.Digest{}, kbs.Digest{}
	return by.Register(r.t.Context(), req)
}

// TestNativeTwins: native guests say who they are, and that alone gets neither
// the other's key.
func TestNativeTwins(t *testing.T) {
	n := verifiertest.NewIntel(t, rigTime)
	r := newRig(t, withTDX(t, n))
	log := func(kernel byte) []eventlog.Event {
		return append(tdLog(), eventlog.Event{Register: 2, Type: 5, Digest: kbs.Digest{kernel}})
	}
	ref := func(kernel byte) kbs.ReferenceValues {
		v := measured(kbs.TDX, 0x3e)
		_, rtmrs := bodyOf(t, log(kernel), nil)
		v.TDX = &kbs.TDXRules{RTMRs: rtmrs}
		return v
	}
	for i, id := range []string{"w0", "w1"} {
		req := request(id, 0)
		req.Registration.ReferenceValues = ref(byte(i))
		if _, err := r.admin.Register(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		for _, claims := range []string{"w0", "w1"} {
			c, req := r.guest(claims, 0)
			req.TEE = kbs.TDX
			req.Attest = func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
				body, _ := bodyOf(t, log(byte(i)), rd[:])
				return kbs.Evidence{TEE: kbs.TDX, Report: n.Quote(t, body)}, nil
			}
			k, err := c.Release(t.Context(), req)
			if own := claims == fmt.Sprint("w", i); own != (err == nil) || own && string(k.Reveal()) != diskKeyText+claims {
				t.Errorf("guest %d as %s: %v", i, claims, err)
			}
		}
	}
}

// TestNearestIsExplained: a guest that is none of several with its launch digest
// is denied; the tenant that owns them all reads which rules of the nearest
// failed. If they are several tenants', the operator alone does.
func TestNearestIsExplained(t *testing.T) {
	n := verifiertest.NewIntel(t, rigTime)
	pair := twins(t, n)["Azure guests"]
	r := newRig(t, withSNP(t, session.Trustee))
	acme, evil := r.tenant("acme", store.Publisher), r.tenant("evil", store.Publisher)
	for i, m := range pair {
		if _, err := r.tryRegisterBy(acme, fmt.Sprint("acme.w", i), m.ref); err != nil {
			t.Fatal(err)
		}
	}
	denied := func() string {
		t.Helper()
		changed := *pair[0]
		changed.evidence = thirdAzure
		k, err := r.guestOf(t, &changed, nil).resource(diskKeyOf + "acme.w0")
		var e *errorInformation
		if !errors.As(err, &e) || k != nil || strings.Contains(e.Detail, "acme") {
			t.Fatalf("%q, %v", k, err)
		}
		_, number, _ := strings.Cut(e.Detail, "ccrun explain ")
		return number
	}
	number := denied()
	rec, err := acme.Session(t.Context(), number)
	if err != nil || rec.WorkloadID != "acme.w0" || rec.Granted {
		t.Fatalf("%+v, %v", rec, err)
	}
	if got := failedRules(rec.Result.Rules); !slices.Equal(got, []string{"registered", "pcr9", "appraisal"}) {
		t.Errorf("failed rules %q", got)
	}
	if _, err := evil.Session(t.Context(), number); err == nil {
		t.Error("another tenant reads it")
	}
	third := pair[0].ref
	third.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": strings.Repeat("77", 32)}}
	if _, err := r.tryRegisterBy(evil, "evil.w", third); err != nil {
		t.Fatal(err)
	}
	number = denied()
	for name, client := range map[string]kbs.AdminClient{"acme": acme, "evil": evil} {
		if rec, err := client.Session(t.Context(), number); err == nil {
			t.Errorf("%s reads %+v", name, rec)
		}
	}
	if rec, err := r.admin.Session(t.Context(), number); err != nil || rec.WorkloadID != "" || !slices.Contains(failedRules(rec.Result.Rules), "pcr9") {
		t.Errorf("the operator reads %+v, %v", rec, err)
	}
	_, err = r.tryRegisterBy(evil, "evil.copy", pair[0].ref)
	var p *kbs.ProblemError
	if !errors.As(err, &p) || p.Code != kbs.CodeDuplicateDigest || strings.Contains(p.Detail, "acme") {
		t.Errorf("evil is told %v", err)
	}
}

// thirdAzure is Evidence of a guest with the Azure twins' launch digest and boot
// loader, and a kernel of neither.
func thirdAzure(t *testing.T, rd [64]byte) []byte {
	a := &verifiertest.VTPM{Key: verifiertest.RSAKeys()[3], UserData: rd[:48]}
	a.PCRs[4], a.PCRs[9] = [32]byte{0x44}, [32]byte{9}
	digest := sha256.Sum256(a.VarData(t))
	var want [64]byte
	copy(want[:], digest[:])
	attester, vcek, _ := platform(t)
	return a.EvidenceSNP(t, launched(t, attester, 5, nil, want).Report, vcek)
}

func failedRules(rules []kbs.Rule) (failed []string) {
	for _, r := range rules {
		if !r.Pass {
			failed = append(failed, r.Rule)
		}
	}
	return failed
}
