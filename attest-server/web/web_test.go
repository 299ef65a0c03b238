package web

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/secret"
)

// site is a page over a real store.
type site struct {
	t     *testing.T
	page  *Page
	store *store.DB
	now   time.Time
	log   bytes.Buffer
	key   secret.Bytes
}

const attackersName = `<script>alert(1)</script>`

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, now: time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC), key: secret.New(bytes.Repeat([]byte{7}, 32))}
	master, err := masterkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return s.now }
	s.store, err = store.Create(t.Context(), filepath.Join(t.TempDir(), "db"), store.Options{MasterKey: master, Rand: rand.Reader, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.store.Close() })
	s.page, err = New(Options{
		Store: s.store, CookieKey: s.key, Rand: rand.Reader, Clock: clock, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		Notice: "a notice",
		Witnesses: func() Witnesses {
			return Witnesses{Refusal: "why", All: []Witness{{Name: "w<1>", Asked: true, Problem: "out of reach"}, {Name: "w2", Asked: true, Entries: 7}, {Name: "w3"}}}
		},
		Expiries: func() []Expiry {
			return []Expiry{{"tls", "late", s.now.Add(800 * 24 * time.Hour)}, {"crl", "over", s.now.Add(-time.Hour)}, {"collateral", "soon", s.now.Add(5 * 24 * time.Hour)}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) token(role store.Role, life time.Duration) (string, store.Token) {
	s.t.Helper()
	until := time.Time{}
	if life > 0 {
		until = s.now.Add(life)
	}
	text, t, err := s.store.CreateToken(s.t.Context(), "", role, "", until, "local")
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text.Reveal()), t
}

func (s *site) do(method, path, cookie string, form url.Values, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	req := httptest.NewRequestWithContext(s.t.Context(), method, "https://keys.example"+path, strings.NewReader(form.Encode()))
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if cookie != "" {
		req.AddCookie(&http.Cookie{Name: cookieName, Value: cookie})
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.page.ServeHTTP(w, req)
	return w
}

// login is the cookie that a token gets.
func (s *site) login(token string) string {
	s.t.Helper()
	w := s.do("POST", "/ui/login", "", url.Values{"token": {token}})
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		s.t.Fatalf("login: %d %s", w.Code, w.Body)
	}
	c := w.Result().Cookies()
	if len(c) != 1 || c[0].Name != cookieName || !c[0].Secure || !c[0].HttpOnly || c[0].SameSite != http.SameSiteStrictMode || c[0].Path != "/" || c[0].Domain != "" || c[0].MaxAge < 1 {
		s.t.Fatalf("cookie %+v", c)
	}
	if strings.Contains(c[0].Value, token) {
		s.t.Fatal("the cookie shows the token")
	}
	return c[0].Value
}

// populate makes a store worth looking at, with hostile text wherever a guest
// or a host decides it.
func (s *site) populate() {
	s.t.Helper()
	for i := range 3 {
		reg := kbs.Registration{
			Version: 1, WorkloadID: fmt.Sprintf("workload-%d", i), Release: &kbs.ReleaseLimits{PerDay: 77, Approvals: []string{"acme"}}, Image: "sha256:" + strings.Repeat("ab", 32),
			IdentityDigest: kbs.Sum384([]byte{1, byte(i)}), FooterDigest: kbs.Sum384([]byte{2, byte(i)}),
			ReferenceValues: kbs.ReferenceValues{TEE: kbs.SNP, SNP: &kbs.SNPRules{AllowDebug: i == 1}, Measurements: []kbs.Measurement{
				{LaunchDigest: kbs.LaunchDigest{byte(i + 1)}, Profile: "libkrun-1.16", CPUs: 2, MemoryMiB: 2048, Firmware: "00"},
			}},
		}
		if _, err := s.store.Register(s.t.Context(), reg, nil, secret.New([]byte("a disk key, secret")), "token/x"); err != nil {
			s.t.Fatal(err)
		}
	}
	if _, err := s.store.Revoke(s.t.Context(), "workload-2", "token/x"); err != nil {
		s.t.Fatal(err)
	}
	for i := range 60 {
		s.record(fmt.Sprintf("s%02d", i), i%3, time.Duration(i)*time.Hour)
	}
}

func (s *site) record(number string, kind int, ago time.Duration) {
	s.t.Helper()
	rules := []kbs.Rule{
		{Rule: "session_nonce", Pass: true, Expected: "the nonce of this session", Got: "the same"},
		{Rule: "tee_key", Pass: true, Expected: "a key", Got: attackersName},
		{Rule: "registered", Pass: true, Expected: "workload-0", Got: "workload-0"},
		{Rule: "report_data", Pass: true, Expected: "aa", Got: "aa"},
		{Rule: "signature", Pass: true, Expected: "by VCEK", Got: "by VCEK"},
		{Rule: "measurement", Pass: kind != 1, Expected: "01", Got: attackersName, Hint: "the hint"},
		{Rule: "appraisal", Pass: kind != 1, Expected: kbs.Affirming, Got: kbs.Contraindicated},
	}
	claims := verifier.Claims{
		TEE: kbs.SNP, LaunchDigest: kbs.LaunchDigest{1}, ReportData: kbs.ReportData{0xaa, 0xbb}, SNP: &verifier.SNPClaims{Product: "Milan", Signer: "VCEK", ChipID: chipOf(kind)},
		Chain:  []verifier.Certificate{{Subject: "ARK-Milan", SHA256: "11"}, {Subject: "SEV-Milan", SHA256: "22"}, {Subject: "SEV-VCEK", SHA256: "33"}},
		Checks: []kbs.Rule{{Rule: "signature", Pass: true, Expected: "by VCEK", Got: "by VCEK"}},
	}
	raw, err := json.Marshal(claims)
	if err != nil {
		s.t.Fatal(err)
	}
	if kind == 1 {
		rules = append(rules, kbs.Rule{Rule: "advisory:AMD-SB-1", Expected: "more", Got: attackersName})
	}
	if kind == 2 {
		rules, raw = append(rules[:3:3], kbs.Rule{Rule: "signature", Expected: "a signature", Got: "none", Hint: "forged"}), nil
	}
	r := kbs.SessionRecord{
		Session: number, WorkloadID: "workload-0", At: s.now.Add(-ago), Peer: "192.0.2.1", Granted: kind == 0,
		Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Contraindicated, Rules: rules, Claims: raw},
	}
	if kind == 0 {
		r.Result.Result = kbs.Affirming
	}
	if err := s.store.RecordSession(s.t.Context(), r, kind != 2); err != nil {
		s.t.Fatal(err)
	}
}

// chip is the machine that granted sessions were on. Denied ones hide theirs.
var chip = strings.Repeat("a5", 64)

func chipOf(kind int) verifier.Hex {
	if kind != 0 {
		return make(verifier.Hex, 64)
	}
	return bytes.Repeat([]byte{0xa5}, 64)
}

var pages = []string{
	"/", "/ui/workloads", "/ui/workloads?after=workload-0", "/ui/workloads/workload-0", "/ui/workloads/workload-1", "/ui/workloads/workload-2",
	"/ui/sessions", "/ui/sessions?workload=workload-0", "/ui/sessions/s00", "/ui/sessions/s01", "/ui/sessions/s02",
	"/ui/fleet", "/ui/fleet?q=aa&firmware=sound&outcome=granted", "/ui/approvals", "/ui/approvals?workload=workload-0",
	"/ui/denials", "/ui/denials?range=30d", "/ui/denials?range=90d", "/ui/denials?range=x", "/ui/expiry", "/ui/audit", "/ui/audit?upto=2",
}

func TestEveryPage(t *testing.T) {
	s := newSite(t)
	text, _ := s.token(store.Auditor, 0)
	cookie := s.login(text)
	for _, round := range []string{"empty", "full"} {
		if round == "full" {
			s.populate()
		}
		for _, path := range pages {
			w := s.do("GET", path, cookie, nil)
			body := w.Body.String()
			if round == "empty" && strings.Count(path, "/") > 2 {
				if w.Code != http.StatusNotFound {
					t.Errorf("%s: %d", path, w.Code)
				}
				continue
			}
			if w.Code != http.StatusOK {
				t.Errorf("%s %s: %d %s", round, path, w.Code, body)
				continue
			}
			checkPage(t, path, w)
			if strings.Contains(body, text) || strings.Contains(body, "a disk key, secret") {
				t.Errorf("%s shows a secret", path)
			}
		}
	}
	for path, wants := range map[string][]string{
		"/ui/sessions/s00":         {"Vendor root", "ARK-Milan", "SEV-VCEK", "Platform certificate", "aabb", "Granted. The guest has not fetched it.", "by VCEK"},
		"/ui/sessions/s01":         {"Why it was denied", "measurement", "the hint", "&lt;script&gt;", "Not released"},
		"/ui/sessions/s02":         {"could not be traced", "forged", "not reached"},
		"/ui/workloads/workload-1": {"Approval of acme", "snp.allow_debug", "libkrun-1.16", "2048", "Sessions a day", "77", "acme"},
		"/ui/workloads/workload-2": {"revoked", "strict default"},
		"/ui/workloads":            {"workload-0", "workload-2", "active", "revoked"},
		"/ui/workloads/workload-0": {"Approval of acme", "missing"},
		"/ui/fleet":                {"chip <code title=\"" + chip, "workload-0", "refused: AMD-SB-1", "address 192.0.2.1"},
		"/ui/audit?":               {"Witnesses", "w&lt;1&gt;", "does not agree", "out of reach", "agrees", "not asked yet", "Nothing is released:"},
		"/?":                       {"1 of 3", "nothing is released"},
		"/ui/expiry":               {"expired 60 minutes ago", "in 5 days", "in 800 days"},
		"/ui/audit":                {"workload.revoke", "attest.grant", "Ed25519", "audit verify --expect"},
		"/ui/denials":              {"<svg", "<rect", "measurement", "signature"},
		"/ui/sessions":             {"Older", "s00"},
	} {
		body := s.do("GET", path, cookie, nil).Body.String()
		for _, want := range wants {
			if !strings.Contains(body, want) {
				t.Errorf("%s lacks %q", path, want)
			}
		}
	}
	if n := strings.Count(s.do("GET", "/ui/sessions/s00", cookie, nil).Body.String(), "by VCEK</code></td><td role=\"cell\" data-of=\"Got\">"); n != 1 {
		t.Errorf("the Evidence's check is shown %d times", n)
	}
	older := regexp.MustCompile(`href="(/ui/sessions\?[^"]*before=[^"]*)"`).FindStringSubmatch(s.do("GET", "/ui/sessions", cookie, nil).Body.String())
	if older == nil {
		t.Fatal("no link to older sessions")
	}
	next := s.do("GET", strings.ReplaceAll(older[1], "&amp;", "&"), cookie, nil).Body.String()
	if !strings.Contains(next, "s59") || strings.Contains(next, ">s49<") || !strings.Contains(next, ">s50<") {
		t.Error("the second page of sessions is not the rest of the first")
	}
}

// checkPage holds a page against what the policy and assistive technology
// need.
func checkPage(t *testing.T, path string, w *httptest.ResponseRecorder) {
	t.Helper()
	body := w.Body.String()
	if got := w.Header().Get("Content-Security-Policy"); got != policy || strings.Contains(got, "unsafe") {
		t.Errorf("%s: policy %q", path, got)
	}
	if !strings.HasPrefix(w.Header().Get("Strict-Transport-Security"), "max-age=") {
		t.Errorf("%s: no Strict-Transport-Security", path)
	}
	if w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("X-Frame-Options") != "DENY" {
		t.Errorf("%s: headers %v", path, w.Header())
	}
	for _, never := range []string{"<script", "<style", " style=", " onclick", "http://", "https://", "ZgotmplZ", "%!"} {
		if strings.Contains(body, never) {
			t.Errorf("%s contains %q", path, never)
		}
	}
	for _, once := range []string{"<h1>", "<main ", "<title>", `lang="en"`, `class="skip"`, "a notice"} {
		n := strings.Count(body, once)
		if once == "<title>" { // the chart's bars have titles, too
			n = min(n, 1)
		}
		if n != 1 {
			t.Errorf("%s has %d of %s", path, n, once)
		}
	}
	for _, th := range regexp.MustCompile(`<th[ >][^>]*`).FindAllString(body, -1) {
		if !strings.Contains(th, "scope=") {
			t.Errorf("%s: header cell without scope: %s", path, th)
		}
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		if ids[m[1]] {
			t.Errorf("%s: two elements with id %s", path, m[1])
		}
		ids[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`aria-labelledby="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		if !ids[m[1]] {
			t.Errorf("%s: no element %s to label by", path, m[1])
		}
	}
}

func TestNothingWithoutLogin(t *testing.T) {
	s := newSite(t)
	s.populate()
	text, tok := s.token(store.Auditor, 0)
	good := s.login(text)
	tampered := []byte(good)
	tampered[len(tampered)/2] ^= 1
	for name, cookie := range map[string]string{"none": "", "garbage": "x", "tampered": string(tampered), "short": good[:20], "the token itself": text} {
		for _, path := range pages {
			if w := s.do("GET", path, cookie, nil); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/ui/login" || strings.Contains(w.Body.String(), "workload-0") {
				t.Errorf("%s with cookie %s: %d", path, name, w.Code)
			}
		}
	}
	ok := func() bool { return s.do("GET", "/", good, nil).Code == http.StatusOK }
	if !ok() {
		t.Fatal("a good cookie is refused")
	}
	s.now = s.now.Add(8*time.Hour - time.Second)
	if !ok() {
		t.Error("login ends too early")
	}
	s.now = s.now.Add(time.Second)
	if ok() {
		t.Error("login does not end")
	}
	good = s.login(text)
	if err := s.store.RevokeToken(t.Context(), tok.ID, "local"); err != nil {
		t.Fatal(err)
	}
	if ok() {
		t.Error("a revoked token's login goes on")
	}
	brief, _ := s.token(store.Publisher, time.Hour)
	good = s.login(brief)
	s.now = s.now.Add(time.Hour)
	if ok() {
		t.Error("an expired token's login goes on")
	}
}

func TestLoginRefuses(t *testing.T) {
	s := newSite(t)
	text, _ := s.token(store.Auditor, 0)
	for name, form := range map[string]url.Values{
		"empty": {}, "wrong": {"token": {text[:len(text)-1] + "x"}}, "long": {"token": {strings.Repeat("x", 1000)}},
		"huge": {"token": {strings.Repeat("x", 1<<20)}}, "markup": {"token": {attackersName}},
	} {
		w := s.do("POST", "/ui/login", "", form)
		if w.Code != http.StatusUnauthorized || len(w.Result().Cookies()) != 0 || strings.Contains(w.Body.String(), "<script") {
			t.Errorf("%s: %d %v", name, w.Code, w.Result().Cookies())
		}
	}
	if w := s.do("POST", "/ui/login?token="+text, "", url.Values{}); w.Code != http.StatusUnauthorized {
		t.Errorf("a token in the address is taken: %d", w.Code)
	}
	for _, path := range []string{"/ui/login", "/ui/logout"} {
		if w := s.do("POST", path, "", url.Values{"token": {text}}, "Sec-Fetch-Site", "cross-site"); w.Code != http.StatusForbidden || len(w.Result().Cookies()) != 0 {
			t.Errorf("%s from another site: %d", path, w.Code)
		}
	}
	mine, other := s.login(text), s.login(text)
	w := s.do("POST", "/ui/logout", mine, url.Values{})
	if c := w.Result().Cookies(); len(c) != 1 || c[0].MaxAge >= 0 || c[0].Value != "" {
		t.Errorf("logout: %v", c)
	}
	if w := s.do("GET", "/", mine, nil); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/ui/login" {
		t.Errorf("a copy of the cookie outlives the logout: %d", w.Code)
	}
	if w := s.do("POST", "/ui/logout", mine, url.Values{}); w.Code != http.StatusSeeOther {
		t.Errorf("logout once more: %d", w.Code)
	}
	if w := s.do("GET", "/", other, nil); w.Code != http.StatusOK {
		t.Errorf("another login of the same token: %d", w.Code)
	}
	if w := s.do("DELETE", "/ui/workloads/x", s.login(text), nil); w.Code < 400 {
		t.Errorf("DELETE: %d", w.Code)
	}
	if strings.Contains(s.log.String(), text) {
		t.Error("the log holds a token")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("New of the zero value")
	}
	o := s.page.Options
	o.CookieKey = secret.New(nil)
	if _, err := New(o); err == nil {
		t.Error("New without a cookie key")
	}
}

func TestStatic(t *testing.T) {
	s := newSite(t)
	for path, kind := range map[string]string{"/ui/style.css": "text/css; charset=utf-8", "/ui/icon.svg": "image/svg+xml"} {
		if w := s.do("GET", path, "", nil); w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || w.Body.Len() == 0 {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
	}
	if w := s.do("GET", "/ui/login", "", nil); w.Code != http.StatusOK {
		t.Errorf("login page: %d", w.Code)
	} else {
		checkPage(t, "/ui/login", w)
	}
}
