package cdh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// fake answers resources by name.
type fake struct {
	fail  error
	asked []string
	wait  chan struct{}
	mu    sync.Mutex
}

func (f *fake) ask(what string) error {
	f.mu.Lock()
	f.asked = append(f.asked, what)
	f.mu.Unlock()
	if f.wait != nil {
		<-f.wait
	}
	return f.fail
}

func (f *fake) Resource(_ context.Context, id kbs.ResourceID) (secret.Bytes, error) {
	err := f.ask(id.String())
	return secret.New([]byte("\x00value of " + id.Tag + "\xff")), err
}

func (f *fake) Token(context.Context) (string, error) { return "a.b.c", f.ask("token") }

func (f *fake) Evidence(_ context.Context, data []byte) (kbs.Evidence, error) {
	return kbs.Evidence{TEE: kbs.TDX, Report: []byte("quote")}, f.ask("evidence " + string(data))
}

func get(h http.Handler, target string, change func(*http.Request)) *http.Response {
	r := httptest.NewRequest("GET", target, nil)
	r.Host = "127.0.0.1:8006"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestService: what CoCo's programs ask is answered as they expect it.
func TestService(t *testing.T) {
	f := &fake{}
	h := (&Service{Source: f}).Handler(false)
	for target, want := range map[string]string{
		"/cdh/resource/default/key/1":                                      "\x00value of 1\xff",
		"/aa/token?token_type=kbs":                                         `{"token":"a.b.c"}`,
		"/aa/evidence?runtime_data=x%20y":                                  `{"cc_eventlog":null,"quote":"cXVvdGU="}`,
		"/aa/evidence?encoding=base64&runtime_data=_w":                     `{"cc_eventlog":null,"quote":"cXVvdGU="}`,
		"/aa/evidence?runtime_data=" + strings.Repeat("y", MaxRuntimeData): `{"cc_eventlog":null,"quote":"cXVvdGU="}`,
	} {
		r := get(h, target, nil)
		if got := body(t, r); r.StatusCode != 200 || got != want || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%.60s: %d %q", target, r.StatusCode, got)
		}
	}
	if got := strings.Join(f.asked, "\n"); !strings.Contains(got, "default/key/1") || !strings.Contains(got, "evidence x y\n") && !strings.HasSuffix(got, "evidence x y") || !strings.Contains(got, "evidence \xff") {
		t.Errorf("asked %q", got)
	}
}

// TestServiceRefuses what nobody has to be asked for.
func TestServiceRefuses(t *testing.T) {
	f := &fake{}
	s := &Service{Source: f}
	long := strings.Repeat("a", 65)
	for target, want := range map[string]int{
		"/": 404, "/cdh": 404, "/aa/tokens": 404, "/aa/token/": 404, "/cdh/resources/a/b/c": 404, "/info": 404,
		"/cdh/resource/a/b": 400, "/cdh/resource/a/b/c/d": 400, "/cdh/resource//b/c": 400, "/cdh/resource/a/b/": 400,
		"/cdh/resource/../b/c": 400, "/cdh/resource/a/b/.c": 400, "/cdh/resource/a/b/%63": 400, "/cdh/resource/a%2Fb/c": 400, "/cdh/resource/a/b/c%00": 400,
		"/cdh/resource/" + long + "/b/c": 400, "/cdh/resource/a/b/" + long: 400, "/cdh/resource/a/b/ü": 400,
		"/cdh/resource/a/b/c?%zz": 400, "/aa/token": 400, "/aa/token?token_type=coco_as": 400,
		"/aa/evidence": 400, "/aa/evidence?runtime_data=a&runtime_data=b": 400, "/aa/evidence?encoding=hex&runtime_data=00": 400,
		"/aa/evidence?encoding=base64&runtime_data=_w==": 400, "/aa/evidence?encoding=base64&runtime_data=_x": 400,
		"/aa/evidence?runtime_data=" + strings.Repeat("y", MaxRuntimeData+1): 413,
	} {
		r := get(s.Handler(true), target, nil)
		if got := body(t, r); r.StatusCode != want || got == "" {
			t.Errorf("%.60s: %d %q, expected %d", target, r.StatusCode, got, want)
		}
	}
	const good = "/cdh/resource/a/b/c"
	for name, x := range map[string]struct {
		want   int
		change func(*http.Request)
	}{
		"another method":      {405, func(r *http.Request) { r.Method = "POST" }},
		"a body":              {413, func(r *http.Request) { r.ContentLength = 1 }},
		"a body of no length": {413, func(r *http.Request) { r.ContentLength = -1 }},
		"a browser":           {403, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }},
		"a proxy":             {403, func(r *http.Request) { r.Header.Set("X-Forwarded-For", "192.0.2.1") }},
		"another's name":      {403, func(r *http.Request) { r.Host = "evil.example:8006" }},
		"another port":        {403, func(r *http.Request) { r.Host = "127.0.0.1:80" }},
		"no host":             {403, func(r *http.Request) { r.Host = "" }},
	} {
		if r := get(s.Handler(false), good, x.change); r.StatusCode != x.want {
			t.Errorf("%s: %d, expected %d", name, r.StatusCode, x.want)
		}
	}
	if len(f.asked) != 0 {
		t.Errorf("asked %q", f.asked)
	}
	if r := get(s.Handler(true), good, func(r *http.Request) { r.Host = "anything" }); r.StatusCode != 200 {
		t.Errorf("a unix socket: %d", r.StatusCode)
	}
	if r := get((&Service{}).Handler(false), good, nil); r.StatusCode != 503 {
		t.Errorf("nobody to ask: %d", r.StatusCode)
	}
}

// TestStatuses: what the server says becomes a status that a program can go by,
// and none of its words.
func TestStatuses(t *testing.T) {
	problem := func(status int, code string) error {
		return fmt.Errorf("asking: %w", &kbs.ProblemError{Problem: kbs.Problem{Status: status, Code: code, Detail: "only for the owner"}, RetryAfter: 7 * time.Second})
	}
	for want, errs := range map[int][]error{
		403: {problem(403, "forbidden"), problem(403, "attestation_denied"), problem(401, "session_expired"), problem(409, "already_released")},
		404: {problem(404, "not_found")}, 413: {problem(413, "too_large")}, 429: {problem(429, "rate_limited")}, 400: {problem(400, "bad_request")},
		503: {problem(503, "unavailable"), problem(500, "internal"), errors.New("dial tcp: refused"), context.DeadlineExceeded},
	} {
		for _, err := range errs {
			r := get((&Service{Source: &fake{fail: err}}).Handler(false), "/cdh/resource/a/b/c", nil)
			text := body(t, r)
			if r.StatusCode != want || strings.Contains(text, "value") || strings.Contains(text, "only for") || strings.Contains(text, "dial") || (r.Header.Get("Retry-After") != "") != (want == 429 || want == 503) {
				t.Errorf("%v: %d %q %v, expected %d", err, r.StatusCode, text, r.Header, want)
			}
		}
	}
	r := get((&Service{Source: &fake{fail: errors.New("EIO of /dev/x")}}).Handler(false), "/aa/evidence?runtime_data=x", nil)
	if text := body(t, r); r.StatusCode != 503 || strings.Contains(text, "EIO") {
		t.Errorf("a device that fails: %d %q", r.StatusCode, text)
	}
}

// TestBudget: a workload that asks without an end is told so, and asks again later.
func TestBudget(t *testing.T) {
	at := time.Unix(1000, 0)
	f := &fake{}
	s := &Service{Source: f, Clock: func() time.Time { return at }}
	many := func(n int) (refused int) {
		for range n {
			if r := get(s.Handler(false), "/cdh/resource/a/b/c", nil); r.StatusCode == 429 && r.Header.Get("Retry-After") == "1" {
				refused++
			}
		}
		return refused
	}
	if n := many(burst + 10); n != 10 {
		t.Errorf("%d refused, expected 10", n)
	}
	at = at.Add(time.Second)
	if n := many(perSecond + 5); n != 5 {
		t.Errorf("%d refused a second later, expected 5", n)
	}
	at = at.Add(-time.Hour) // a clock that goes back gives nothing
	if n := many(3); n != 3 {
		t.Errorf("%d refused an hour before, expected 3", n)
	}
	at = at.Add(3 * time.Hour)
	if n := many(burst + 1); n != 1 {
		t.Errorf("%d refused hours later, expected 1", n)
	}
}

// TestUnderWay: of questions that wait there are few at once.
func TestUnderWay(t *testing.T) {
	f := &fake{wait: make(chan struct{})}
	s := &Service{Source: f}
	var g sync.WaitGroup
	for range underWay {
		g.Go(func() { get(s.Handler(false), "/cdh/resource/a/b/c", nil) })
	}
	for n := 0; n < underWay; time.Sleep(time.Millisecond) {
		s.budget.mu.Lock()
		n = s.budget.now
		s.budget.mu.Unlock()
	}
	if r := get(s.Handler(false), "/cdh/resource/a/b/c", nil); r.StatusCode != 429 {
		t.Errorf("one more: %d", r.StatusCode)
	}
	close(f.wait)
	g.Wait()
	if r := get(s.Handler(false), "/cdh/resource/a/b/c", nil); r.StatusCode != 200 {
		t.Errorf("afterwards: %d", r.StatusCode)
	}
}

// TestBounded: connections beyond the bound are closed, not left waiting, and a
// head that is too long is refused.
func TestBounded(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := (&Service{Source: &fake{}}).Server(true)
	go func() { _ = s.Serve(Bounded(l)) }()
	defer s.Close()
	dial := func() net.Conn {
		c, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	send := func(c net.Conn, text string) string {
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, _ = io.WriteString(c, text)
		b, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "nobody takes it"
		}
		return string(b)
	}
	if got := send(dial(), "GET /cdh/resource/a/b/c HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("y", 16<<10)+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 431") {
		t.Errorf("a long head: %.60q", got)
	}
	var open []net.Conn
	for range connections {
		open = append(open, dial())
	}
	const question = "GET /cdh/resource/a/b/c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	if got := send(dial(), question); got != "" {
		t.Errorf("one too many: %q", got)
	}
	open[0].Close()
	got := ""
	for ; !strings.HasPrefix(got, "HTTP/1.1 200"); time.Sleep(time.Millisecond) { // until the server has seen it
		got = send(dial(), question)
	}
	for _, c := range open {
		c.Close()
	}
}

// TestCoCoReport: every byte of a report with a meaning comes through.
func TestCoCoReport(t *testing.T) {
	report := make([]byte, snpReportBytes)
	for i := range report {
		report[i] = byte(i)
	}
	copy(report, []byte{5, 0, 0, 0})
	cert := append([]byte("\x63\xda\x75\x8d\xe6\x64\x45\x64\xad\xc5\xf4\xb9\x3b\xe8\xac\xcd"), 48, 0, 0, 0, 2, 0, 0, 0)
	table := append(append(cert, make([]byte, 24)...), 7, 8)
	v, err := cocoEvidence(kbs.Evidence{TEE: kbs.Sample, Report: report, Certificates: table})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil || !strings.Contains(string(b), `"cert_chain":[{"cert_type":"VCEK","data":[7,8]}]`) {
		t.Errorf("%.200s, %v", b, err)
	}
	for _, bad := range []kbs.Evidence{{}, {TEE: kbs.SNP, Report: report[:1000]}, {TEE: "other", Report: report}} {
		if v, err := cocoEvidence(bad); err == nil {
			t.Errorf("%v", v)
		}
	}
	for name, table := range map[string][]byte{"outside": append(cert[:20:20], 255, 0, 0, 0), "cut": cert[:23], "none": nil, "unknown": make([]byte, 48)} {
		if c := cocoCertificates(table); c != nil {
			t.Errorf("%s: %v", name, c)
		}
	}
}
