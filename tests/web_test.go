package tests

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/secret"
)

// TestWebPage goes through the auditors' page with a real browser and the
// keyboard alone. Screenshots are artifacts (go test -artifacts).
func TestWebPage(t *testing.T) {
	endToEnd(t)
	dir := t.TempDir()
	base, auditor := webServer(t, dir)
	withChromium(t, func(c *chromium) { c.tour(base, auditor) }, keyOfCertificate(t, filepath.Join(dir, "server/server.pem")))
}

// tour looks at each page, from logging in to logging out.
func (c *chromium) tour(base, auditor string) {
	t := c.t
	t.Helper()
	c.view(1280, "light")
	c.call("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}) // nothing here needs JavaScript

	c.open(base + "/")
	if title := c.eval("document.title"); !strings.HasPrefix(title, "Log in") {
		t.Fatalf("not asked to log in, but shown %q", title)
	}
	c.look("login", "light", 1280)
	if id := c.eval("document.activeElement.id"); id != "token" {
		t.Errorf("focus is on %q, expected the token's field", id)
	}
	if c.complaints != nil {
		t.Errorf("the browser complains: %v", c.complaints)
	}
	c.call("Input.insertText", map[string]any{"text": "wrong"})
	c.page(c.enter)
	if text := c.eval("document.body.innerText"); !strings.Contains(text, "unknown, expired or revoked") {
		t.Errorf("a wrong token: %s", text)
	}
	c.complaints = nil // of the status 401
	c.call("Input.insertText", map[string]any{"text": auditor})
	c.page(c.enter)
	if title := c.eval("document.title"); !strings.HasPrefix(title, "Overview") {
		t.Fatalf("after login: %q", title)
	}
	if cookies := c.eval("document.cookie"); cookies != "" {
		t.Errorf("scripts can read the cookie: %q", cookies)
	}
	c.keyboard()
	denied := c.eval(`[...document.querySelectorAll("tbody tr")].find(r => r.innerText.includes("measurement")).querySelector("a").getAttribute("href")`)
	granted := c.eval(`[...document.querySelectorAll("tbody tr")].find(r => r.innerText.includes("granted")).querySelector("a").getAttribute("href")`)
	pages := map[string]string{
		"overview": "/", "workloads": "/ui/workloads", "workload": "/ui/workloads/w1", "sessions": "/ui/sessions", "denied": denied, "granted": granted,
		"denials": "/ui/denials", "expiry": "/ui/expiry", "audit": "/ui/audit", "fleet": "/ui/fleet", "approvals": "/ui/approvals",
	}
	for _, v := range []struct {
		width  int
		scheme string
	}{{1280, "light"}, {1280, "dark"}, {390, "light"}, {390, "dark"}, {800, "light"}} {
		c.view(v.width, v.scheme)
		for name, path := range pages {
			if v.scheme == "dark" && v.width == 390 && name != "fleet" || v.width == 800 && name != "sessions" {
				continue // as good as seen
			}
			c.open(base + path)
			c.look(name, v.scheme, v.width)
		}
	}
	for path, wants := range map[string][]string{
		granted: {"Vendor root", "trusted", "Released, sealed", "released"},
		denied:  {"Why it was denied", "measurement", "kept"},

		"/ui/fleet":     {"chip ", "w1", "nothing open", "Last seen"},
		"/ui/approvals": {"acme", "workload/w1/key", "token/"},
		"/ui/audit":     {"Witnesses", "agrees"},
	} {
		c.open(base + path)
		text := c.eval("document.body.innerText")
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q:\n%s", path, want, text)
			}
		}
	}
	c.search(base)
	if c.complaints != nil {
		t.Errorf("the browser complains: %v", c.complaints)
	}
	for _, r := range c.requests {
		if !strings.HasPrefix(r, base+"/") && r != "about:blank" {
			t.Errorf("the page asked %s", r)
		}
	}
	c.page(func() { c.eval(`document.querySelector("header button").focus()`); c.enter() })
	c.open(base + "/ui/audit")
	if title := c.eval("document.title"); !strings.HasPrefix(title, "Log in") {
		t.Errorf("after logging out: %q", title)
	}
}

// keyboard tabs through the page: the skip link comes first, every link and
// button has its turn, each with a focus that can be seen.
func (c *chromium) keyboard() {
	c.t.Helper()
	c.eval("document.activeElement.blur()")
	var seen []string
	for range 60 {
		c.tab()
		at := c.eval(`(e => e === document.body ? "" : (e.getAttribute("href") || e.tagName) + "|" + getComputedStyle(e).outlineStyle + "|" + (e.getBoundingClientRect().left >= 0))(document.activeElement)`)
		if at == "" || len(seen) > 2 && at == seen[0] {
			break
		}
		if !strings.HasSuffix(at, "|solid|true") {
			c.t.Errorf("focus is not visible: %s", at)
		}
		seen = append(seen, at)
	}
	if len(seen) == 0 || !strings.HasPrefix(seen[0], "#main|") {
		c.t.Errorf("the first stop is not the skip link: %v", seen)
	}
	all := c.eval(`[...document.querySelectorAll("a[href], button, summary")].map(e => e.getAttribute("href") || e.tagName).join(" ")`)
	var stops []string
	for _, s := range seen {
		stop, _, _ := strings.Cut(s, "|")
		stops = append(stops, stop)
	}
	for want := range strings.FieldsSeq(all) {
		if !slices.Contains(stops, want) {
			c.t.Errorf("the keyboard does not reach %s: %v", want, stops)
		}
	}
}

// search looks for what there is and what there is not, by keyboard.
func (c *chromium) search(base string) {
	c.t.Helper()
	for _, x := range []struct{ text, want string }{{"MEASUREMENT", "denied"}, {"<b>nothing", "Nothing here matches"}} {
		c.open(base + "/ui/sessions")
		c.eval(`document.getElementById("q").focus()`)
		c.call("Input.insertText", map[string]any{"text": x.text})
		c.page(c.enter)
		if text := c.eval(`document.querySelector("main").innerText`); !strings.Contains(text, x.want) || strings.Contains(text, "granted\t") {
			c.t.Errorf("searching for %s: %s", x.text, text)
		}
	}
}

// sideways names what stands beside the window: verdicts at any width, and in
// narrow windows everything.
const sideways = `(() => {
	const wide = e => e.getBoundingClientRect().right > innerWidth + 1 || e.getBoundingClientRect().left < -1;
	const found = [...document.querySelectorAll(".state")].filter(wide);
	if (innerWidth < 600) found.push(...[...document.querySelectorAll("main *")].filter(e => e.checkVisibility() && !e.closest("thead") && (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "auto" || wide(e))));
	return found.map(e => e.outerHTML.slice(0, 120)).join("\n");
})()`

// look takes a screenshot and checks what can be checked of it: nothing is
// cut off at the side, and the colours are the scheme's.
func (c *chromium) look(name, scheme string, width int) {
	c.t.Helper()
	if over := c.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth"); over != "0" {
		c.t.Errorf("%s at %d: %s pixels wider than the window", name, width, over)
	}
	if beside := c.eval(sideways); beside != "" {
		c.t.Errorf("%s at %d: to be seen by scrolling sideways alone: %s", name, width, beside)
	}
	c.accessible(fmt.Sprintf("%s, %s, %d", name, scheme, width))
	b := c.screenshot()
	img, err := png.Decode(bytes.NewReader(b))
	if err != nil {
		c.t.Fatal(err)
	}
	bounds := img.Bounds()
	r, g, bl, _ := img.At(bounds.Max.X-2, bounds.Max.Y-2).RGBA()
	if bright := r+g+bl > 3*0x8000; bright != (scheme == "light") {
		c.t.Errorf("%s: background %04x %04x %04x in the %s scheme", name, r, g, bl, scheme)
	}
	colours := map[string]bool{}
	for y := bounds.Min.Y; y < bounds.Max.Y; y += 3 {
		for x := bounds.Min.X; x < bounds.Max.X; x += 3 {
			colours[fmt.Sprint(img.At(x, y))] = true
		}
	}
	if len(colours) < 8 {
		c.t.Errorf("%s: %d colours: is the style sheet applied?", name, len(colours))
	}
	write(c.t, filepath.Join(c.t.ArtifactDir(), fmt.Sprintf("%s-%s-%d.png", name, scheme, width)), b)
}

// webServer is a simulated attest-server with a workload that was granted,
// denied and forged once each, and an auditor's token.
func webServer(t *testing.T, dir string) (base, auditor string) {
	t.Helper()
	bin, root, data := filepath.Join(binDir(t), "ccrun-sim"), filepath.Join(dir, "platform"), filepath.Join(dir, "server")
	run := func(args ...string) string {
		t.Helper()
		var stderr bytes.Buffer
		cmd := exec.Command(bin, args...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("ccrun-sim %v: %v: %s", args, err, stderr.String())
		}
		return strings.TrimSpace(string(out))
	}
	run("init", "--sample-root", root)
	admin := run("attest-server", "init", "--data", data, "--name", "127.0.0.1")
	auditor = run("attest-server", "token", "create", "--data", data, "--role", "auditor")
	run("attest-server", "tenant", "set", "acme", "--data", data)
	approver := run("attest-server", "token", "create", "--data", data, "--role", "publisher", "--tenant", "acme")
	memory, config := filepath.Join(dir, "memory"), filepath.Join(dir, "server.toml")
	if err := os.Mkdir(memory, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, config, fmt.Appendf(nil, "data = %q\n[[witness]]\nname = \"backup\"\nurl = \"file://%s\"\n", data, memory))
	run("attest-server", "audit", "introduce", "--config", config)
	base = "https://127.0.0.1:" + freePort(t)
	server := exec.Command(bin, "attest-server", "serve", "--config", config, "--listen", strings.TrimPrefix(base, "https://"), "--sample-root", root)
	var log bytes.Buffer
	server.Stderr = &log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
		if t.Failed() {
			t.Logf("server: %s", log.String())
		}
	})
	ca, err := os.ReadFile(filepath.Join(data, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	owner := kbs.AdminClient{URL: base, Token: secret.New([]byte(admin)), RootCAs: roots}
	digest := kbs.LaunchDigest{1, 2, 3}
	reg := kbs.Registration{
		Version: 1, WorkloadID: "w1", IdentityDigest: kbs.Sum384([]byte("identity")), FooterDigest: kbs.Sum384([]byte("footer")),
		ReferenceValues: kbs.ReferenceValues{TEE: kbs.Sample, Measurements: []kbs.Measurement{{LaunchDigest: digest, Profile: "test", CPUs: 1, MemoryMiB: 512}}},
	}
	registers := func() bool {
		_, err = owner.Register(t.Context(), kbs.RegisterRequest{Registration: reg, DiskKey: []byte(strings.Repeat("k", 64))})
		return err == nil
	}
	if !eventually(registers) {
		t.Fatalf("registering: %v\n%s", err, log.String())
	}
	acme := kbs.AdminClient{URL: base, Token: secret.New([]byte(approver)), RootCAs: roots}
	if err := acme.Approve(t.Context(), kbs.Approval{Name: kbs.ReleaseName("w1"), WorkloadID: "w1", RegistrationDigest: kbs.Digest{1}}); err != nil {
		t.Fatal(err)
	}
	attester, err := sample.OpenAttester(root)
	if err != nil {
		t.Fatal(err)
	}
	attest := func(digest kbs.LaunchDigest, spoil byte) error {
		guest := kbs.Client{URLs: []string{base}, PinnedKeys: []string{pinOf(t, ca)}}
		_, err := guest.Release(t.Context(), kbs.ReleaseRequest{
			WorkloadID: "w1", TEE: kbs.Sample, IdentityDigest: reg.IdentityDigest, FooterDigest: reg.FooterDigest,
			Attest: func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
				l, err := sample.NewLaunch(digest)
				if err != nil {
					return kbs.Evidence{}, err
				}
				ev, err := attester.Sign(rd, l)
				if err == nil {
					ev.Report[0x90] ^= spoil
				}
				return ev, err
			},
		})
		return err
	}
	if err := attest(digest, 0); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{attest(kbs.LaunchDigest{9}, 0), attest(digest, 1)} {
		if !errors.Is(err, kbs.ErrDenied) {
			t.Fatalf("expected a denial, got %v", err)
		}
	}
	return base, auditor
}

func pinOf(t testing.TB, b []byte) string { t.Helper(); return kbs.PinOf(parsePEM(t, b)) }

// keyOfCertificate is the SHA-256 of the first certificate's SPKI, base64.
func keyOfCertificate(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(parsePEM(t, b).RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func parsePEM(t testing.TB, b []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatal("no PEM block")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
