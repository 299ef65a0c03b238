package attestserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
)

// legacyCall registers as buildah does: Go's client, user and password in the
// URL.
func (r *rig) legacyCall(token, body string) (int, string) {
	r.t.Helper()
	u, err := url.Parse(r.http.URL + "/kbs/v0/register_workload")
	if err != nil {
		r.t.Fatal(err)
	}
	if token != "" {
		u.User = url.UserPassword("x", token)
	}
	resp, err := r.http.Client().Post(u.String(), "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// mkcw is the body that buildah sends.
func mkcw(id string, digest byte, passphrase string) string {
	d := kbs.LaunchDigest{digest}
	b, _ := json.Marshal(map[string]string{"workload_id": id, "launch_measurement": d.String(),
		"tee_config": `{"flags":{"bits":15},"minfw":{"major":0,"minor":0}}`, "passphrase": passphrase})
	return string(b)
}

func TestLegacyRegisterRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native, session.Trustee, session.Legacy))
	r.registerSNP("new", kbs.TypeNative, 3)
	admin := string(r.admin.Token.Reveal())
	auditor := string(r.token(store.Auditor).Reveal())
	if status, b := r.legacyCall(admin, mkcw("w1", 1, "p")); status != 200 {
		t.Fatalf("%d %s", status, b)
	}
	swap := func(a, b string) string { return strings.Replace(mkcw("w5", 5, "p"), a, b, 1) }
	for name, x := range map[string]struct {
		token, body string
		status      int
	}{
		"no token":              {"", mkcw("w5", 5, "p"), 401},
		"wrong token":           {"ccrun_x", mkcw("w5", 5, "p"), 401},
		"auditor":               {auditor, mkcw("w5", 5, "p"), 403},
		"other passphrase":      {admin, mkcw("w1", 1, "q"), 409},
		"other measurement":     {admin, mkcw("w1", 5, "p"), 409},
		"same digest":           {admin, mkcw("w5", 1, "p"), 409},
		"native's digest":       {admin, mkcw("w5", 3, "p"), 409},
		"native's id":           {admin, mkcw("new", 5, "p"), 409},
		"no passphrase":         {admin, mkcw("w5", 5, ""), 400},
		"long passphrase":       {admin, mkcw("w5", 5, strings.Repeat("p", 246)), 400},
		"NUL in passphrase":     {admin, mkcw("w5", 5, "a\x00b"), 400},
		"no measurement":        {admin, swap((kbs.LaunchDigest{5}).String(), ""), 400},
		"zero measurement":      {admin, swap("05", "00"), 400},
		"id with slash":         {admin, swap("w5", "../w5"), 400},
		"tee_config of numbers": {admin, swap(`\"minor\":0`, `\"minor\":256`), 400},
		"tee_config no JSON":    {admin, swap(`{\"flags\"`, `\"flags\"`), 400},
		"unknown member":        {admin, swap(`"passphrase"`, `"passphras"`), 400},
		"duplicate member":      {admin, swap(`"passphrase"`, `"passphrase":"x","passphrase"`), 400},
		"oversize":              {admin, swap(`"p"`, `"`+strings.Repeat("p", 1<<17)+`"`), 413},
		"no JSON":               {admin, "x", 400},
	} {
		if status, b := r.legacyCall(x.token, x.body); status != x.status || b == "" || len(b) >= 200 {
			t.Errorf("%s: %d %q, expected %d", name, status, b, x.status)
		}
	}
	list, err := r.admin.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("list %+v, %v", list, err)
	}
	long := strings.Repeat("a", 65) // with 64 it fits exactly into the shortest URL there is
	if status, b := r.legacyCall(admin, mkcw(long, 7, "p")); status != 200 || !strings.Contains(b, "shorter") {
		t.Errorf("id too long for the client: %d %q", status, b)
	}
	c := r.cClient(long, 7)
	if _, err := c.run(); !errors.Is(err, errOverrun) {
		t.Errorf("the warning was for nothing: %v", err)
	}
}

// TestTypesAreStrict registers over /v1 what the types forbid.
func TestTypesAreStrict(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native, session.Legacy))
	for name, change := range map[string]func(*kbs.RegisterRequest){
		"unknown type":         func(q *kbs.RegisterRequest) { q.Registration.Type = "native" },
		"dialect not spoken":   func(q *kbs.RegisterRequest) { q.Registration.Type = kbs.TypeTrustee },
		"native, no identity":  func(q *kbs.RegisterRequest) { q.Registration.Type = kbs.TypeNative },
		"legacy with identity": func(q *kbs.RegisterRequest) { q.Registration.IdentityDigest = kbs.Digest{1} },
		"legacy with footer":   func(q *kbs.RegisterRequest) { q.Registration.FooterDigest = kbs.Digest{1} },
		"legacy, other TEE":    func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.TEE = kbs.Sample },
		"legacy, debug":        func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.SNP = &kbs.SNPRules{AllowDebug: true} },
		"legacy, migration":    func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.SNP = &kbs.SNPRules{AllowMigrateMA: true} },
		"legacy, provisional": func(q *kbs.RegisterRequest) {
			q.Registration.ReferenceValues.SNP = &kbs.SNPRules{AllowProvisional: true}
		},
		"legacy, VMPL": func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.SNP = &kbs.SNPRules{VMPL: 1} },
		"legacy, two digests": func(q *kbs.RegisterRequest) {
			m := &q.Registration.ReferenceValues.Measurements
			*m = append(*m, kbs.Measurement{LaunchDigest: kbs.LaunchDigest{8}})
		},
		"legacy, long disk key": func(q *kbs.RegisterRequest) { q.DiskKey = bytes.Repeat([]byte("k"), 246) },
	} {
		req := request("w1", 1)
		req.Registration.Type, req.Registration.ReferenceValues.TEE = kbs.TypeLegacy, kbs.SNP
		req.Registration.IdentityDigest, req.Registration.FooterDigest = kbs.Digest{}, kbs.Digest{}
		change(&req)
		var p *kbs.ProblemError
		if _, err := r.admin.Register(t.Context(), req); !errors.As(err, &p) || p.Status != 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A native guest cannot have a weaker workload's key, whatever it proves.
	r.registerSNP("old", kbs.TypeLegacy, 1)
	c, req := r.guest("old", 1)
	a, _, _ := platform(t)
	l, err := sample.NewLaunch(kbs.LaunchDigest{1})
	if err != nil {
		t.Fatal(err)
	}
	req.TEE = kbs.SNP
	req.Attest = func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
		ev, err := a.Sign(rd, l)
		ev.TEE = kbs.SNP
		return ev, err
	}
	if k, err := c.Release(t.Context(), req); !errors.Is(err, kbs.ErrDenied) {
		t.Errorf("Release = %q, %v", k.Reveal(), err)
	}
}
