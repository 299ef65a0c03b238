package attestserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/session"
)

// TestDialectsOff: what is not configured is not there.
func TestDialectsOff(t *testing.T) {
	for _, x := range []struct {
		dialects []session.Dialect
		path     string
		body     string
		gone     bool
	}{
		{nil, "/kbs/v0/register_workload", mkcw("w1", 1, "p"), true},
		{[]session.Dialect{session.Native, session.Trustee}, "/kbs/v0/register_workload", mkcw("w1", 1, "p"), true},
		{[]session.Dialect{session.Native}, "/kbs/v0/auth", `{"version":"0.4.0","tee":"snp","extra-params":""}`, true},
		{[]session.Dialect{session.Legacy}, "/kbs/v0/auth", `{"version":"0.4.0","tee":"snp","extra-params":""}`, true},
		{[]session.Dialect{session.Trustee}, "/kbs/v0/auth", `{"version":"0.0.0","tee":"snp","extra-params":"{\"workload_id\":\"w1\"}"}`, true},
		{[]session.Dialect{session.Trustee}, "/v1/auth", `{"version":1,"tee":"snp","workload_id":"w1"}`, true},
		{nil, "/v1/auth", `{"version":1,"tee":"snp","workload_id":"w1"}`, false},
		{nil, "/kbs/v0/auth", `{"version":"0.4.0","tee":"snp","extra-params":""}`, false},
	} {
		r := newRig(t, withSNP(t, x.dialects...))
		status, b := r.call("POST", x.path, string(r.admin.Token.Reveal()), x.body)
		if (status == 200) == x.gone {
			t.Errorf("%v: %s: %d %s", x.dialects, x.path, status, b)
		}
	}
	if _, err := New(Config{Dialects: []session.Dialect{"x"}}); err == nil {
		t.Error("unknown dialect")
	}
}

func TestForeignMalformed(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee, session.Legacy))
	c := r.coco("P-256", 1)
	for name, x := range map[string]struct {
		path, body string
		status     int
	}{
		"no JSON":           {"auth", "hello", 401},
		"empty":             {"auth", "", 401},
		"array":             {"auth", "[]", 401},
		"duplicate member":  {"auth", `{"version":"0.4.0","version":"0.4.0","tee":"snp","extra-params":""}`, 401},
		"duplicate by case": {"auth", `{"version":"0.4.0","Version":"0.4.0","tee":"snp","extra-params":""}`, 401},
		"trailing data":     {"auth", `{"version":"0.4.0","tee":"snp","extra-params":""} {}`, 401},
		"deep":              {"auth", strings.Repeat("[", 1000), 401},
		"hostile name":      {"auth", `{"` + strings.Repeat("\\u001b", 300) + `":1,"` + strings.Repeat("\\u001b", 300) + `":1}`, 401},
		"oversize auth":     {"auth", strings.Repeat(" ", maxForeignAuth+1), 413},
		"oversize attest":   {"attest", strings.Repeat(" ", maxForeignBody+1), 401}, // in no session
		"attest, no cookie": {"attest", `{}`, 401},
		"attest, no JSON":   {"attest", `x`, 401},
		"version a number":  {"auth", `{"version":4,"tee":"snp","extra-params":""}`, 401},
	} {
		_, err := c.post("/kbs/v0/"+x.path, []byte(x.body))
		var e *errorInformation
		if !errors.As(err, &e) || e.status != x.status {
			t.Errorf("%s: %v", name, err)
		} else if b, _ := json.Marshal(e); len(b) >= 200 || strings.Contains(e.Detail, "\x1b") {
			t.Errorf("%s: %d bytes, more than the C client takes: %s", name, len(b), b)
		}
	}
	for _, method := range []string{"PUT", "DELETE"} {
		req, _ := http.NewRequest(method, c.url+"/kbs/v0/resource/default/a/b", nil)
		resp, err := c.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.answer(resp); err == nil {
			t.Errorf("%s of a resource succeeded", method)
		}
	}
}
