package attestserver

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestTenantAuditTellsNoNumbers: a tenant reads its part of the audit log page
// by page, and nothing in it counts what others do in between.
func TestTenantAuditTellsNoNumbers(t *testing.T) {
	r := newRig(t)
	acme, evil := r.tenant("acme", "admin"), r.tenant("evil", "admin")
	token := func(c kbs.AdminClient) string { return string(c.Token.Reveal()) }
	for i, id := range []string{"acme.a", "evil.a", "acme.b", "evil.b", "acme.c"} {
		c := acme
		if strings.HasPrefix(id, "evil") {
			c = evil
		}
		if _, err := c.Register(t.Context(), request(id, byte(i+1))); err != nil {
			t.Fatal(err)
		}
	}
	page := func(bearer, query string, want int) (p kbs.AuditPage) {
		t.Helper()
		status, body := r.call("GET", "/v1/audit?"+query, bearer, nil)
		if status != want || strings.Contains(string(body), "sequence\":") {
			t.Fatalf("%s: %d %s", query, status, body)
		}
		if status == http.StatusOK {
			if err := kbs.UnmarshalStrict(body, &p); err != nil || p.Next != 0 {
				t.Fatalf("%s: %v", body, err)
			}
		}
		return p
	}
	var objects []string
	first := ""
	for cursor := ""; ; {
		p := page(token(acme), "limit=1&cursor="+url.QueryEscape(cursor), http.StatusOK)
		for _, e := range p.Entries {
			objects = append(objects, e.Object)
		}
		if cursor = p.Cursor; cursor == "" || len(objects) > 100 {
			break
		}
		if first == "" {
			first = cursor
		}
	}
	objects = slices.DeleteFunc(objects, func(o string) bool { return !strings.Contains(o, ".") })
	if !slices.Equal(objects, []string{"acme.a", "acme.b", "acme.c"}) {
		t.Errorf("acme reads %v", objects)
	}
	for name, query := range map[string]string{
		"a number": "after=0", "a number beside": "after=3&cursor=" + first, "nothing of ours": "cursor=AAAA", "no base64": "cursor=%21", "cut": "cursor=" + first[:len(first)-2],
		"long": "cursor=" + strings.Repeat("A", 1000),
	} {
		t.Log(name)
		page(token(acme), query, http.StatusBadRequest)
	}
	page(token(evil), "cursor="+first, http.StatusBadRequest)
	if p, err := r.admin.Audit(t.Context(), 2); err != nil || len(p.Entries) == 0 || p.Entries[0].Sequence != 3 || p.Cursor != "" {
		t.Errorf("the operator's: %+v, %v", p, err)
	}
}
