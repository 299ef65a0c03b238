package attestserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

func (r *rig) tenant(name string, role store.Role) kbs.AdminClient {
	r.t.Helper()
	if err := r.store.SetTenant(r.t.Context(), name, 3, 3, "local"); err != nil {
		r.t.Fatal(err)
	}
	tok, _, err := r.store.CreateToken(r.t.Context(), name, role, "", time.Time{}, "local")
	if err != nil {
		r.t.Fatal(err)
	}
	return r.adminClient(tok)
}

// TestAuditHeadIsTheOperators: how many entries there are tells what others do.
func TestAuditHeadIsTheOperators(t *testing.T) {
	r := newRig(t)
	r.register("w", 1)
	if err := r.store.SetTenant(t.Context(), "acme", 3, 3, "local"); err != nil {
		t.Fatal(err)
	}
	for tenant, want := range map[string]int{"": http.StatusOK, "acme": http.StatusForbidden} {
		for _, role := range []store.Role{store.Admin, store.Auditor} {
			tok, _, err := r.store.CreateToken(t.Context(), tenant, role, "", time.Time{}, "local")
			if err != nil {
				t.Fatal(err)
			}
			if status, body := r.call("GET", "/v1/audit/head", string(tok.Reveal()), nil); status != want || want != http.StatusOK && strings.Contains(string(body), "sequence") {
				t.Errorf("tenant %q, %s: %d %s", tenant, role, status, body)
			}
		}
	}
}

// TestTenantsSeeNothingOfOneAnother asks, as one tenant, for everything that
// another has and for the same that nobody has: no answer may differ.
func TestTenantsSeeNothingOfOneAnother(t *testing.T) {
	r := newRig(t)
	acme, evil := r.tenant("acme", store.Admin), r.tenant("evil", store.Admin)
	if _, err := acme.Register(t.Context(), request("acme.shop", 1)); err != nil {
		t.Fatal(err)
	}
	id := kbs.ResourceID{Repo: "acme", Type: "key", Tag: "db"}
	if _, err := acme.SetResource(t.Context(), id, kbs.ResourceRequest{Value: []byte("v"), Policy: kbs.ResourcePolicy{Tenants: []string{"acme"}}}); err != nil {
		t.Fatal(err)
	}
	h := r.begin("acme.shop", 1)
	h.doAttest()
	sess, err := r.server.sessions.Parse(session.Native, []byte(h.bearer))
	if err != nil {
		t.Fatal(err)
	}
	slot, _, _ := keyslotFor(t, diskKeyText+"acme.shop")
	put := request("acme.shop", 1)
	other := request("acme.none", 9)
	for _, x := range []struct {
		method, theirs, nobodys string
		body, sameBody          any
	}{
		{"GET", "/v1/workloads/acme.shop", "/v1/workloads/acme.none", nil, nil},
		{"PUT", "/v1/workloads/acme.shop", "/v1/workloads/acme.none", put, other},
		{"DELETE", "/v1/workloads/acme.shop", "/v1/workloads/acme.none", nil, nil},
		{"POST", "/v1/workloads/acme.shop/revoke", "/v1/workloads/acme.none/revoke", nil, nil},
		{"POST", "/v1/workloads/acme.shop/rotate", "/v1/workloads/acme.none/rotate", kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: slot}}, kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: slot}}},
		{"GET", "/v1/resources/acme/key/db", "/v1/resources/acme/key/none", nil, nil},
		{"PUT", "/v1/resources/acme/key/db", "/v1/resources/acme/key/none", kbs.ResourceRequest{Value: []byte("x"), Policy: kbs.ResourcePolicy{Tenants: []string{"evil"}}}, kbs.ResourceRequest{Value: []byte("x"), Policy: kbs.ResourcePolicy{Tenants: []string{"evil"}}}},
		{"DELETE", "/v1/resources/acme/key/db", "/v1/resources/acme/key/none", nil, nil},
		{"GET", "/v1/sessions/" + sess.ID.String(), "/v1/sessions/0000", nil, nil},
	} {
		status, a := r.call(x.method, x.theirs, text(evil.Token), x.body)
		want, b := r.call(x.method, x.nobodys, text(evil.Token), x.sameBody)
		a = bytes.ReplaceAll(a, []byte("acme.shop"), []byte("acme.none"))
		a = bytes.ReplaceAll(a, []byte("key/db"), []byte("key/none"))
		a = bytes.ReplaceAll(a, []byte(sess.ID.String()), []byte("0000"))
		if status != want || status/100 != 4 || !bytes.Equal(a, b) {
			t.Errorf("%s %s: %d %s, for what does not exist %d %s", x.method, x.theirs, status, a, want, b)
		}
		if x.method != "GET" {
			continue
		}
		if status, _ := r.call(x.method, x.theirs, text(acme.Token), nil); status != http.StatusOK {
			t.Errorf("%s %s by its owner: %d", x.method, x.theirs, status)
		}
	}
	if list, err := evil.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("list: %v, %v", list, err)
	}
	if list, err := evil.Resources(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("resources: %v, %v", list, err)
	}
	if list, err := evil.Sessions(t.Context(), "", "", 100); err != nil || len(list.Sessions) != 0 {
		t.Errorf("sessions: %+v, %v", list, err)
	}
	if list, err := acme.Sessions(t.Context(), "", "", 100); err != nil || len(list.Sessions) == 0 {
		t.Errorf("acme's own sessions: %+v, %v", list, err)
	}
	page, err := evil.Audit(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range page.Entries {
		if e.Object != "evil" {
			t.Errorf("audit shows %+v", e)
		}
	}
	if page, err := acme.Audit(t.Context(), 0); err != nil || len(page.Entries) < 3 {
		t.Errorf("acme's own audit: %+v, %v", page, err)
	}
	_, err = evil.Register(t.Context(), request("evil.copy", 1))
	var p *kbs.ProblemError
	if !errors.As(err, &p) || p.Code != kbs.CodeDuplicateDigest || strings.Contains(p.Detail, "acme") {
		t.Errorf("duplicate digest: %v", err)
	}
	if list, err := r.admin.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("the operator sees %v, %v", list, err)
	}
}

func TestTenantQuotaAndRoles(t *testing.T) {
	r := newRig(t)
	acme, auditor := r.tenant("acme", store.Publisher), r.tenant("acme", store.Auditor)
	for i := range 3 {
		if _, err := acme.Register(t.Context(), request("acme.w"+string(rune('0'+i)), byte(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	var p *kbs.ProblemError
	if _, err := acme.Register(t.Context(), request("acme.w3", 9)); !errors.As(err, &p) || p.Code != kbs.CodeQuota {
		t.Errorf("fourth of three: %v", err)
	}
	if _, err := acme.Register(t.Context(), request("shop", 9)); !errors.As(err, &p) || p.Code != kbs.CodeForbidden {
		t.Errorf("the operator's name: %v", err)
	}
	if list, err := auditor.List(t.Context()); err != nil || len(list) != 3 {
		t.Errorf("auditor's list: %v, %v", list, err)
	}
	if _, err := auditor.Revoke(t.Context(), "acme.w0"); !errors.As(err, &p) || p.Code != kbs.CodeForbidden {
		t.Errorf("auditor revokes: %v", err)
	}
}

func TestResources(t *testing.T) {
	r := newRig(t)
	bank, card := r.tenant("bank", store.Publisher), r.tenant("card", store.Publisher)
	if _, err := bank.Register(t.Context(), request("bank.w", 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := card.Register(t.Context(), request("card.w", 2)); err != nil {
		t.Fatal(err)
	}
	id := kbs.ResourceID{Repo: "bank.prod", Type: "key", Tag: "db"}
	value := strings.Repeat("s", kbs.MaxResourceBytes)
	set := kbs.ResourceRequest{Value: []byte(value), Policy: kbs.ResourcePolicy{Workloads: []string{"bank.w"}, Approvals: []string{"card"}}}
	if a, err := bank.SetResource(t.Context(), id, set); err != nil || !a.Created || a.Version != 1 {
		t.Fatalf("SetResource = %+v, %v", a, err)
	}
	fetch := func(workload string, digest byte, id kbs.ResourceID) (secret.Bytes, string) {
		t.Helper()
		c, req := r.guest(workload, digest)
		s, err := c.Attest(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.DiskKey(t.Context()); err != nil {
			t.Errorf("disk key in the same session: %v", err)
		}
		v, err := s.Resource(t.Context(), id)
		var p *kbs.ProblemError
		if errors.As(err, &p) {
			return v, p.Code
		}
		if err != nil {
			t.Fatal(err)
		}
		return v, ""
	}
	if _, got := fetch("bank.w", 1, id); got != kbs.CodeForbidden {
		t.Errorf("without card's approval: %q", got)
	}
	w, err := r.store.Workload(t.Context(), "bank.w")
	if err != nil {
		t.Fatal(err)
	}
	approval := kbs.Approval{Name: kbs.ResourceName(id), WorkloadID: "bank.w", RegistrationDigest: w.Digest}
	var p *kbs.ProblemError
	if err := r.admin.Approve(t.Context(), approval); !errors.As(err, &p) || p.Code != kbs.CodeForbidden {
		t.Errorf("the operator approves: %v", err)
	}
	if err := card.Approve(t.Context(), approval); err != nil {
		t.Fatal(err)
	}
	if v, got := fetch("bank.w", 1, id); got != "" || string(v.Reveal()) != value {
		t.Errorf("approved: %q", got)
	}
	if _, got := fetch("card.w", 2, id); got != kbs.CodeNotFound {
		t.Errorf("a workload not named: %q", got)
	}
	if _, got := fetch("bank.w", 1, kbs.ResourceID{Repo: "bank.prod", Type: "key", Tag: "none"}); got != kbs.CodeNotFound {
		t.Errorf("no such resource: %q", got)
	}
	if err := card.Withdraw(t.Context(), approval); err != nil {
		t.Fatal(err)
	}
	if _, got := fetch("bank.w", 1, id); got != kbs.CodeForbidden {
		t.Errorf("withdrawn: %q", got)
	}
	status, b := r.call("GET", "/v1/resources/bank.prod/key/db", text(bank.Token), nil)
	if status != http.StatusOK || bytes.Contains(b, []byte("c3Nzc3Nz")) || bytes.Contains(b, []byte("ssssss")) {
		t.Errorf("meta: %d %.200s", status, b)
	}
	if strings.Contains(r.log.String(), "ssssss") {
		t.Error("log holds the value")
	}
}

func TestResourcesRefuse(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	good := kbs.ResourceRequest{Value: []byte("v"), Policy: kbs.ResourcePolicy{Workloads: []string{"w1"}}}
	for name, x := range map[string]struct {
		path   string
		change func(*kbs.ResourceRequest)
	}{
		"no value":             {"/v1/resources/a/b/c", func(q *kbs.ResourceRequest) { q.Value = nil }},
		"too large":            {"/v1/resources/a/b/c", func(q *kbs.ResourceRequest) { q.Value = make([]byte, kbs.MaxResourceBytes+1) }},
		"policy of nobody":     {"/v1/resources/a/b/c", func(q *kbs.ResourceRequest) { q.Policy = kbs.ResourcePolicy{} }},
		"empty tenant":         {"/v1/resources/a/b/c", func(q *kbs.ResourceRequest) { q.Policy.Tenants = []string{""} }},
		"workload with a path": {"/v1/resources/a/b/c", func(q *kbs.ResourceRequest) { q.Policy.Workloads = []string{"../x"} }},
		"empty approver":       {"/v1/resources/a/b/c", func(q *kbs.ResourceRequest) { q.Policy.Approvals = []string{""} }},
		"hidden name":          {"/v1/resources/.a/b/c", func(*kbs.ResourceRequest) {}},
		"escaped slash":        {"/v1/resources/a%2Fx/b/c", func(*kbs.ResourceRequest) {}},
		"long name":            {"/v1/resources/a/b/" + strings.Repeat("c", 65), func(*kbs.ResourceRequest) {}},
	} {
		q := good
		x.change(&q)
		status, b := r.call("PUT", x.path, text(r.admin.Token), q)
		if got := code(t, status, b); got != kbs.CodeBadRequest && got != kbs.CodeNotFound {
			t.Errorf("%s: %d %.100s", name, status, b)
		}
	}
	if list, err := r.admin.Resources(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("refused resources are there: %v, %v", list, err)
	}
	if _, err := r.admin.SetResource(t.Context(), kbs.ResourceID{Repo: "a", Type: "b", Tag: "c"}, good); err != nil {
		t.Fatal(err)
	}
	get := func(bearer string) string {
		status, b := r.call("GET", "/v1/resources/a/b/c", bearer, nil)
		return code(t, status, b)
	}
	h := r.begin("w1", 1)
	if got := get(h.bearer); got != kbs.CodeNotAttested {
		t.Errorf("before attest: %q", got)
	}
	denied := r.begin("w1", 9)
	denied.doAttest()
	if got := get(denied.bearer); got != kbs.CodeAttestationDenied {
		t.Errorf("denied session: %q", got)
	}
	if got := get(""); got != kbs.CodeUnauthorized {
		t.Errorf("nobody: %q", got)
	}
	h.doAttest()
	for i := range 64 {
		if got := get(h.bearer); got != "" {
			t.Fatalf("release %d: %q", i, got)
		}
	}
	if got := get(h.bearer); got != kbs.CodeSessionExpired {
		t.Errorf("beyond a session's releases: %q", got)
	}
	if got := h.doKey(); got != "" {
		t.Errorf("resources used up the key's releases: %q", got)
	}
}

// TestClientCertificates plays owners who hold a certificate and no token.
func TestClientCertificates(t *testing.T) {
	ca, caKey := clientCA(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	r := newRig(t)
	for _, name := range []string{"acme", "anew", "unmeant"} {
		r.tenant(name, store.Auditor)
	}
	made := func(name string) int64 {
		t.Helper()
		made, err := r.store.TenantMade(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	list := []admin.ClientCertificate{
		{Subject: "CN=ci,O=ACME", Role: store.Publisher, Tenant: "acme", TenantMade: made("acme")}, {Subject: "CN=eye", Role: store.Auditor},
		{Subject: "CN=ghost", Role: store.Publisher, Tenant: "ghost", TenantMade: 1}, {Subject: "CN=anew", Role: store.Publisher, Tenant: "anew", TenantMade: made("anew")},
		{Subject: "CN=unmeant", Role: store.Publisher, Tenant: "unmeant"},
	}
	if err := r.server.owners.SetClients(list, pool); err != nil {
		t.Fatal(err)
	}
	if err := r.store.RemoveTenant(t.Context(), "anew", "local"); err != nil {
		t.Fatal(err)
	}
	r.tenant("anew", store.Auditor)
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = r.server.HTTPServer()
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool, Time: r.clock.Now}
	srv.StartTLS()
	defer srv.Close()
	strangerCA, strangerKey := clientCA(t)
	as := func(cert *tls.Certificate, method, path string) int {
		t.Helper()
		c := srv.Client().Transport.(*http.Transport).Clone()
		defer c.CloseIdleConnections()
		if cert != nil {
			c.TLSClientConfig.Certificates = []tls.Certificate{*cert}
		}
		c.TLSClientConfig.Time = r.clock.Now
		c.TLSClientConfig.InsecureSkipVerify = true // the fake clock is not httptest's
		req, _ := http.NewRequestWithContext(t.Context(), method, srv.URL+path, nil)
		resp, err := (&http.Client{Transport: c}).Do(req)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	now := r.clock.Now()
	ci := clientCert(t, ca, caKey, pkix.Name{CommonName: "ci", Organization: []string{"ACME"}}, now)
	for name, x := range map[string]struct {
		cert         *tls.Certificate
		method, path string
		want         int
	}{
		"tenant's publisher reads":     {ci, "GET", "/v1/workloads", 200},
		"tenant's publisher revokes":   {ci, "POST", "/v1/workloads/acme.w/revoke", 404},
		"publisher of no tenant":       {clientCert(t, ca, caKey, pkix.Name{CommonName: "ghost"}, now), "GET", "/v1/workloads", 403},
		"of a tenant made again":       {clientCert(t, ca, caKey, pkix.Name{CommonName: "anew"}, now), "GET", "/v1/workloads", 403},
		"of a tenant that none meant":  {clientCert(t, ca, caKey, pkix.Name{CommonName: "unmeant"}, now), "GET", "/v1/workloads", 403},
		"approvals of no tenant":       {clientCert(t, ca, caKey, pkix.Name{CommonName: "ghost"}, now), "PUT", "/v1/approvals", 403},
		"another's name":               {ci, "GET", "/v1/workloads/w", 404},
		"auditor reads":                {clientCert(t, ca, caKey, pkix.Name{CommonName: "eye"}, now), "GET", "/v1/workloads", 200},
		"auditor reads metrics":        {clientCert(t, ca, caKey, pkix.Name{CommonName: "eye"}, now), "GET", "/metrics", 200},
		"tenant reads metrics":         {ci, "GET", "/metrics", 403},
		"auditor revokes":              {clientCert(t, ca, caKey, pkix.Name{CommonName: "eye"}, now), "POST", "/v1/workloads/w/revoke", 403},
		"no certificate":               {nil, "GET", "/v1/workloads", 401},
		"unknown subject":              {clientCert(t, ca, caKey, pkix.Name{CommonName: "ci"}, now), "GET", "/v1/workloads", 401},
		"stranger's CA, known subject": {clientCert(t, strangerCA, strangerKey, pkix.Name{CommonName: "eye"}, now), "GET", "/v1/workloads", 0},
		"expired":                      {clientCert(t, ca, caKey, pkix.Name{CommonName: "eye"}, now.Add(-48*time.Hour)), "GET", "/v1/workloads", 0},
		"guests need none":             {nil, "GET", "/healthz", 200},
		"comma in the name, no trick":  {clientCert(t, ca, caKey, pkix.Name{CommonName: "ci,O=ACME"}, now), "GET", "/v1/workloads", 401},
	} {
		if got := as(x.cert, x.method, x.path); got != x.want {
			t.Errorf("%s: %d, expected %d", name, got, x.want)
		}
	}
	for _, bad := range []admin.ClientCertificate{{Role: store.Admin}, {Subject: "CN=x"}, {Subject: "CN=x", Role: "root"}, {Subject: "CN=x", Role: store.Admin, Tenant: "A"}} {
		if r.server.owners.SetClients([]admin.ClientCertificate{bad}, pool) == nil {
			t.Errorf("%+v accepted", bad)
		}
	}
	if r.server.owners.SetClients([]admin.ClientCertificate{{Subject: "CN=eye", Role: store.Auditor}}, nil) == nil {
		t.Error("clients without a CA accepted")
	}
}

// TestClientCertificateClockJump: on a connection that stays open a client
// certificate counts as long as it is valid, whichever way the clock jumps.
func TestClientCertificateClockJump(t *testing.T) {
	ca, caKey := clientCA(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	eye := []admin.ClientCertificate{{Subject: "CN=eye", Role: store.Auditor}}
	r := newRig(t, func(c *Config) { c.Clients, c.ClientRoots = eye, pool })
	srv := httptest.NewUnstartedServer(nil)
	srv.Config = r.server.HTTPServer()
	var connections atomic.Int32
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool, Time: r.clock.Now}
	srv.StartTLS()
	defer srv.Close()
	c := srv.Client()
	config := c.Transport.(*http.Transport).TLSClientConfig
	config.Certificates = []tls.Certificate{*clientCert(t, ca, caKey, pkix.Name{CommonName: "eye"}, r.clock.Now())}
	config.InsecureSkipVerify = true // the fake clock is not httptest's
	for _, x := range []struct {
		jump time.Duration
		want int
	}{
		{0, http.StatusOK}, {48 * time.Hour, http.StatusUnauthorized}, {-48 * time.Hour, http.StatusOK},
		{-48 * time.Hour, http.StatusUnauthorized}, {48 * time.Hour, http.StatusOK},
	} {
		r.clock.advance(x.jump)
		resp, err := c.Get(srv.URL + "/v1/workloads")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != x.want {
			t.Errorf("after a jump by %v: %d, expected %d", x.jump, resp.StatusCode, x.want)
		}
	}
	// The list stays, and who vouches for it changes: the open connection's
	// certificate has nobody any more.
	other, _ := clientCA(t)
	otherPool := x509.NewCertPool()
	otherPool.AddCert(other)
	for _, x := range []struct {
		roots *x509.CertPool
		want  int
	}{{otherPool, http.StatusUnauthorized}, {pool, http.StatusOK}} {
		if err := r.server.owners.SetClients(eye, x.roots); err != nil {
			t.Fatal(err)
		}
		resp, err := c.Get(srv.URL + "/v1/workloads")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != x.want {
			t.Errorf("under another CA: %d, expected %d", resp.StatusCode, x.want)
		}
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections, expected one that stays open", n)
	}
}

func clientCA(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	return makeCert(t, template, template, key.Public().(*ecdsa.PublicKey), key), key
}

func clientCert(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, subject pkix.Name, from time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: subject, NotBefore: from.Add(-time.Hour), NotAfter: from.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	c := makeCert(t, template, ca, key.Public().(*ecdsa.PublicKey), caKey)
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
}

func makeCert(t *testing.T, template, parent *x509.Certificate, pub *ecdsa.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, by)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
