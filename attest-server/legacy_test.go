package attestserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/store"
)

// cClient does byte for byte what the C client in libkrun's old init does, and
// fails where that would overrun a buffer. Every request is a connection of
// its own. It sees no status.
type cClient struct {
	r       *rig
	base    string // as in the disk's footer
	id      string
	digest  byte
	private *rsa.PrivateKey
	cookie  string
	nonce   string
	// What a test changes.
	attestBody func(string) string
	keyID      string
	status     string // of the last answer; the client does not know it
}

func (r *rig) cClient(id string, digest byte) *cClient {
	r.t.Helper()
	return &cClient{r: r, base: r.http.URL, id: id, keyID: id, digest: digest, private: rsaKeys()[0]}
}

// rsaKeys is two keys for all tests: making one takes a tenth of a second.
var rsaKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys[i] = k
	}
	return keys
})

var errOverrun = errors.New("buffer overrun")

// perform is curl_easy_perform with cwrite: the first piece of the body is
// taken for all of it. buffer is the size of where it is copied to.
func (c *cClient) perform(method, fullURL, body string, urlBuffer, buffer int) (string, error) {
	if len(fullURL)+1 > urlBuffer {
		return "", fmt.Errorf("URL of %d characters: %w", len(fullURL), errOverrun)
	}
	u, err := url.Parse(fullURL)
	if err != nil {
		return "", err
	}
	conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	head := method + " " + strings.TrimPrefix(fullURL, "https://"+u.Host) + " HTTP/1.1\r\nHost: " + u.Host + "\r\n"
	if c.cookie != "" {
		if len(c.cookie)+1 > 100 {
			return "", fmt.Errorf("cookie of %d characters: %w", len(c.cookie), errOverrun)
		}
		head += "Cookie: session_id=" + c.cookie + "\r\n" // libcurl's engine
	}
	head += "Accept: application/json\r\nContent-Type: application/json; charset=utf-8\r\n"
	if c.cookie != "" {
		head += "Cookie: session_id=" + c.cookie + "\r\n" // and the client itself
	}
	if method == "POST" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(conn, head+"\r\n"+body); err != nil {
		return "", err
	}
	piece, err := c.firstPiece(conn)
	if err != nil {
		return "", err
	}
	if i := strings.IndexByte(piece, 0); i >= 0 {
		piece = piece[:i] // a C string
	}
	if len(piece)+1 > buffer {
		return "", fmt.Errorf("body of %d bytes: %w", len(piece), errOverrun)
	}
	return piece, nil
}

// firstPiece is the part of the body that arrives first.
func (c *cClient) firstPiece(conn io.Reader) (string, error) {
	var got []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		head, body, whole := bytes.Cut(got, []byte("\r\n\r\n"))
		if !whole {
			if err != nil {
				return "", err
			}
			continue
		}
		length := -1
		for i, line := range strings.Split(string(head), "\r\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch {
			case i == 0:
				c.status = line
			case strings.EqualFold(name, "Content-Length"):
				fmt.Sscan(value, &length)
			case strings.EqualFold(name, "Transfer-Encoding"):
				return "", fmt.Errorf("transfer encoding %s", value)
			case strings.EqualFold(name, "Set-Cookie"):
				c.setCookie(value)
			}
		}
		if length < 0 {
			return "", errors.New("no length")
		}
		if length > 0 && len(body) == 0 {
			if n, err = conn.Read(buf); err != nil && n == 0 {
				return "", err
			}
			body = buf[:n]
		}
		return string(body), nil
	}
}

func (c *cClient) setCookie(text string) {
	parsed, err := http.ParseSetCookie(text)
	if err != nil || !strings.Contains(parsed.Name, "session_id") || !strings.HasPrefix("/kbs/v0/key/"+c.id, parsed.Path) {
		c.r.t.Errorf("Set-Cookie %q: %v", text, err)
		return
	}
	c.cookie = parsed.Value
}

func (c *cClient) auth() error {
	body := fmt.Sprintf(`{"extra-params":"{\"workload_id\":\"%s\"}","tee":"snp","version":"0.0.0"}`, c.id)
	if len(body)+1 > 1024 {
		return errOverrun
	}
	answer, err := c.perform("POST", c.base+"/kbs/v0/auth", body, 256, 0x1000)
	if err != nil {
		return err
	}
	// find the label by its prefix, then the string after it
	_, rest, ok := strings.Cut(answer, `"nonce`)
	if ok {
		_, rest, ok = strings.Cut(rest, ":")
	}
	rest, quoted := strings.CutPrefix(strings.TrimLeft(rest, " "), `"`)
	end := strings.IndexByte(rest, '"')
	if !ok || !quoted || end < 0 || end >= 1024 {
		return fmt.Errorf("unable to parse nonce from %q", answer)
	}
	c.nonce = rest[:end]
	return nil
}

func modulus(k *rsa.PrivateKey) string { return base64.StdEncoding.EncodeToString(k.N.Bytes()) }

// request is the body of attest over the nonce that the client now has.
func (c *cClient) request() string {
	mod, exp := modulus(c.private), "AQAB"
	rd := sha512.Sum512([]byte(c.nonce + mod + exp))
	a, _, _ := platform(c.r.t)
	l, err := sample.NewLaunch(kbs.LaunchDigest{c.digest})
	if err != nil {
		c.r.t.Fatal(err)
	}
	ev, err := a.Sign(rd, l)
	if err != nil {
		c.r.t.Fatal(err)
	}
	return fmt.Sprintf(`{"tee-pubkey":{"alg":"RSA","k-mod":"%s","k-exp":"%s"},"tee-evidence":"{\"gen\":\"milan\",\"report\":\"%X\",\"cert_chain\":\"[]\"}"}`,
		mod, exp, ev.Report)
}

func (c *cClient) attest() error {
	body := c.request()
	if len(body)+1 > 0x1000 {
		return errOverrun
	}
	if c.attestBody != nil {
		body = c.attestBody(body)
	}
	answer, err := c.perform("POST", c.base+"/kbs/v0/attest", body, 256, 200)
	if err == nil && answer != "" {
		err = errors.New("ATTESTATION ERROR: " + answer)
	}
	return err
}

func (c *cClient) key() (string, error) {
	answer, err := c.perform("GET", c.base+"/kbs/v0/key/"+c.keyID, "", 100, 4096)
	if err != nil {
		return "", err
	}
	if len(answer) < 2 {
		return "", fmt.Errorf("answer %q", answer)
	}
	sealed, err := hex.DecodeString(answer[1 : len(answer)-1]) // whatever these bytes are
	if err != nil {
		return "", fmt.Errorf("answer %q: %w", answer, err)
	}
	//lint:ignore SA1019 as the client does
	plain, err := rsa.DecryptPKCS1v15(nil, c.private, sealed)
	return string(plain), err
}

func (c *cClient) run() (string, error) {
	if err := c.auth(); err != nil {
		return "", err
	}
	if err := c.attest(); err != nil {
		return "", err
	}
	return c.key()
}

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

func TestLegacyReleases(t *testing.T) {
	r := newRig(t, withSNP(t, Native, Trustee, Legacy))
	token := string(r.token(store.Publisher).Reveal())
	for _, id := range []string{"w1", "w2"} {
		for range 2 { // the second time it is there already
			if status, b := r.legacyCall(token, mkcw(id, id[1]-'0', diskKeyText+id)); status != 200 || b != "" {
				t.Fatalf("register %s: %d %q", id, status, b)
			}
		}
	}
	for _, id := range []string{"w1", "w2"} {
		c := r.cClient(id, id[1]-'0')
		if id == "w2" {
			c.base += "/" // //kbs/v0/auth
		}
		if k, err := c.run(); err != nil || k != diskKeyText+id {
			t.Fatalf("%s: %q, %v", id, k, err)
		}
		if len(c.cookie) > 88 || len(c.nonce) != 64 {
			t.Errorf("cookie of %d, nonce of %d characters", len(c.cookie), len(c.nonce))
		}
	}
	st, err := r.admin.Get(t.Context(), "w1")
	if err != nil || st.Registration.Type != kbs.TypeLegacy || !st.Registration.IdentityDigest.IsZero() || st.Releases != 1 || st.Registration.ReferenceValues.SNP != nil {
		t.Errorf("status %+v, %v", st, err)
	}
	list, err := r.admin.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Type != kbs.TypeLegacy {
		t.Errorf("list %+v, %v: the weaker identity does not show", list, err)
	}
	if s := r.log.String(); strings.Contains(s, diskKeyText) || strings.Contains(s, token) {
		t.Error("the log holds a secret")
	}
}

// TestLegacyRefuses changes one thing. The client knows a refusal of attest by
// a body that is not empty, and must not be sent one that it cannot hold.
func TestLegacyRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, Native, Trustee, Legacy))
	r.registerSNP("w1", kbs.TypeLegacy, 1)
	r.registerSNP("w2", kbs.TypeLegacy, 2)
	r.registerSNP("new", kbs.TypeNative, 3)
	r.registerSNP("coco", kbs.TypeTrustee, 4)
	earlier := r.cClient("w1", 1)
	if err := earlier.auth(); err != nil {
		t.Fatal(err)
	}
	old := earlier.request()
	replace := func(a, b string) func(*cClient) {
		return func(c *cClient) {
			c.attestBody = func(s string) string {
				if !strings.Contains(s, a) {
					t.Errorf("no %q", a)
				}
				return strings.Replace(s, a, b, 1)
			}
		}
	}
	for name, change := range map[string]func(*cClient){
		"replayed request": func(c *cClient) { c.attestBody = func(string) string { return old } },
		"host's key": func(c *cClient) {
			c.attestBody = func(s string) string {
				c.private = rsaKeys()[1]
				return strings.Replace(s, modulus(rsaKeys()[0]), modulus(rsaKeys()[1]), 1)
			}
		},
		"other measurement": func(c *cClient) { c.digest = 9 },
		"other workload's":  func(c *cClient) { c.digest = 2 },
		"native workload":   func(c *cClient) { c.id, c.keyID, c.digest = "new", "new", 3 },
		"trustee workload":  func(c *cClient) { c.id, c.keyID, c.digest = "coco", "coco", 4 },
		"unknown workload":  func(c *cClient) { c.id, c.keyID = "nope", "nope" },
		"forged report":     replace(`\"report\":\"0300`, `\"report\":\"0301`),
		"short report":      replace(`\"report\":\"03000000`, `\"report\":\"`),
		"no hex":            replace(`\"report\":\"0`, `\"report\":\"x`),
		"no evidence": func(c *cClient) {
			c.attestBody = func(s string) string { return s[:strings.Index(s, `"tee-evidence"`)-1] + "}" }
		},
		"small exponent":   replace(`"AQAB"`, `"Aw=="`),
		"no RSA":           replace(`"alg":"RSA"`, `"alg":"EC"`),
		"no JSON":          func(c *cClient) { c.attestBody = func(string) string { return `{"tee-pubkey":` } },
		"empty body":       func(c *cClient) { c.attestBody = func(string) string { return "" } },
		"duplicate member": replace(`"tee-evidence":`, `"tee-evidence":"{}","tee-evidence":`),
		"oversize": func(c *cClient) {
			c.attestBody = func(s string) string { return s + strings.Repeat(" ", maxForeignBody) }
		},
		"cookie changed":       func(c *cClient) { c.attestBody = func(s string) string { c.cookie = "B" + c.cookie[1:]; return s } },
		"other session cookie": func(c *cClient) { c.attestBody = func(s string) string { c.cookie = earlier.cookie; return s } },
		"no cookie":            func(c *cClient) { c.attestBody = func(s string) string { c.cookie = ""; return s } },
		"expired": func(c *cClient) {
			c.attestBody = func(s string) string { r.clock.advance(r.server.SessionLife); return s }
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			c := r.cClient("w1", 1)
			change(c)
			if err := c.auth(); err != nil {
				t.Fatal(err)
			}
			if err := c.attest(); err == nil || !strings.HasPrefix(err.Error(), "ATTESTATION ERROR: ") {
				t.Errorf("attest: %v", err)
			}
			if strings.Contains(c.status, " 200 ") {
				t.Error(c.status)
			}
			if k, err := c.key(); err == nil {
				t.Fatalf("released %q", k)
			}
		})
	}
}

func TestLegacyKeyRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, Trustee, Legacy))
	r.registerSNP("w1", kbs.TypeLegacy, 1)
	r.registerSNP("w2", kbs.TypeLegacy, 2)
	c := r.cClient("w1", 1)
	if err := c.auth(); err != nil {
		t.Fatal(err)
	}
	if k, err := c.key(); err == nil {
		t.Fatalf("before attest: %q", k)
	}
	if err := c.attest(); err != nil {
		t.Fatal(err)
	}
	if err := c.attest(); err == nil {
		t.Error("attested twice with one nonce")
	}
	// What reference-kbs would give out.
	c.keyID = "w2"
	if k, err := c.key(); err == nil {
		t.Fatalf("another workload's key: %q", k)
	}
	c.keyID = "w1"
	own := c.cookie
	c.cookie = own + "; session_id=" + own[:len(own)-1] + "x"
	if len(c.cookie) < 100 {
		t.Fatal("test of two cookies")
	}
	resp := r.raw("/kbs/v0/key/w1", "session_id="+own+"; session_id=x"+own[1:])
	if resp == 200 {
		t.Error("two cookies that differ were taken")
	}
	c.cookie = own
	for i := range 3 {
		if k, err := c.key(); err != nil || k != diskKeyText+"w1" {
			t.Errorf("release %d: %q, %v", i, k, err)
		}
	}
	if _, err := c.key(); err == nil {
		t.Error("a fourth release")
	}
	// The cookie of one dialect is nothing in the other.
	for _, header := range []string{"kbs-session-id=" + own, "session_id=" + r.cocoCookie()} {
		if resp := r.raw("/kbs/v0/resource/ccrun/disk-key/w1", header); resp == 200 {
			t.Errorf("%s was taken for a CoCo session", header)
		}
		if resp := r.raw("/kbs/v0/key/w1", header); resp == 200 {
			t.Errorf("%s was taken for a legacy session", header)
		}
	}
}

func (r *rig) raw(path, cookie string) int {
	req, _ := http.NewRequest("GET", r.http.URL+path, nil)
	req.Header.Set("Cookie", cookie)
	resp, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (r *rig) cocoCookie() string {
	resp, err := r.http.Client().Post(r.http.URL+"/kbs/v0/auth", "application/json", strings.NewReader(`{"version":"0.4.0","tee":"snp","extra-params":""}`))
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	if len(resp.Cookies()) != 1 || resp.Cookies()[0].Name != "kbs-session-id" || !resp.Cookies()[0].Secure {
		r.t.Fatalf("cookies %v", resp.Cookies())
	}
	return resp.Cookies()[0].Value
}

func TestLegacyRegisterRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, Native, Trustee, Legacy))
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

// TestLegacyRules: what tee_config asks for is kept, what it allows is not.
func TestLegacyRules(t *testing.T) {
	for config, want := range map[string]string{
		``: "null",
		`{"flags":{"bits":15},"minfw":{"major":0,"minor":0}}`: "null",
		`{"flags":{"bits":14},"minfw":{"major":0,"minor":0}}`: `{"forbid_smt":true}`,
		`{"flags":{"bits":15},"minfw":{"major":1,"minor":5}}`: `{"minimum_abi":{"major":1,"minor":5}}`,
	} {
		rules, err := legacyRules(config)
		b, _ := json.Marshal(rules)
		if err != nil || string(b) != want {
			t.Errorf("%s: %s, %v", config, b, err)
		}
	}
}

// TestTypesAreStrict registers over /v1 what the types forbid.
func TestTypesAreStrict(t *testing.T) {
	r := newRig(t, withSNP(t, Native, Legacy))
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

// TestDialectsOff: what is not configured is not there.
func TestDialectsOff(t *testing.T) {
	for _, x := range []struct {
		dialects []Dialect
		path     string
		body     string
		gone     bool
	}{
		{nil, "/kbs/v0/register_workload", mkcw("w1", 1, "p"), true},
		{[]Dialect{Native, Trustee}, "/kbs/v0/register_workload", mkcw("w1", 1, "p"), true},
		{[]Dialect{Native}, "/kbs/v0/auth", `{"version":"0.4.0","tee":"snp","extra-params":""}`, true},
		{[]Dialect{Legacy}, "/kbs/v0/auth", `{"version":"0.4.0","tee":"snp","extra-params":""}`, true},
		{[]Dialect{Trustee}, "/kbs/v0/auth", `{"version":"0.0.0","tee":"snp","extra-params":"{\"workload_id\":\"w1\"}"}`, true},
		{[]Dialect{Trustee}, "/v1/auth", `{"version":1,"tee":"snp","workload_id":"w1"}`, true},
		{nil, "/v1/auth", `{"version":1,"tee":"snp","workload_id":"w1"}`, false},
		{nil, "/kbs/v0/auth", `{"version":"0.4.0","tee":"snp","extra-params":""}`, false},
	} {
		r := newRig(t, withSNP(t, x.dialects...))
		status, b := r.call("POST", x.path, string(r.admin.Token.Reveal()), x.body)
		if (status == 200) == x.gone {
			t.Errorf("%v: %s: %d %s", x.dialects, x.path, status, b)
		}
	}
	if _, err := New(Config{Dialects: []Dialect{"x"}}); err == nil {
		t.Error("unknown dialect")
	}
}

// The answer is that of reference-kbs, run.
func TestLegacyKnownAnswer(t *testing.T) {
	n := make([]byte, 256)
	for i := range n {
		n[i] = byte(i)
	}
	n[0] = 0xc0
	rd := legacyReportData("00112233445566778899aabbccddeeff", base64.StdEncoding.EncodeToString(n), "AQAB")
	if rd.String() != "a6787518c6c632fed326bad7c9b3d46f64927dd631d23e24e16c2c4e8138a3ffa549c0fb4decfc5608dcfb8f17ac2399591500d41040af4bef2b893ab92cd957" {
		t.Errorf("report data %s", rd)
	}
}
