package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TestFilters: a list shows what is asked for and no more, and what is asked for
// is no markup.
func TestFilters(t *testing.T) {
	s := newSite(t)
	text, _ := s.token(store.Auditor, 0)
	cookie := s.login(text)
	s.populate()
	for path, c := range map[string]struct{ has, lacks string }{
		"/ui/sessions?outcome=denied":                           {">s01<", ">s00<"},
		"/ui/sessions?outcome=granted":                          {">s00<", ">s01<"},
		"/ui/sessions?outcome=undecided":                        {"Nothing here matches", ">s00<"},
		"/ui/sessions?outcome=<script>":                         {">s00<", "<script"},
		"/ui/sessions?q=S07":                                    {">s07<", ">s08<"},
		"/ui/sessions?q=signature":                              {">s02<", ">s01<"},
		"/ui/sessions?q=%22%3E%3Cscript%3E":                     {"&#34;&gt;&lt;script&gt;", "<script"},
		"/ui/sessions?workload=workload-0&q=s01":                {"name=\"workload\" value=\"workload-0\"", ">s02<"},
		"/ui/sessions?q=" + strings.Repeat("x", 5000):           {"Nothing here matches", strings.Repeat("x", 257)},
		"/ui/workloads?q=REVOKED":                               {"/ui/workloads/workload-2", "/ui/workloads/workload-1"},
		"/ui/workloads?q=nothing":                               {"Nothing here matches", "/ui/workloads/workload-1"},
		"/ui/fleet?firmware=sound":                              {chip, "AMD-SB-1"},
		"/ui/fleet?firmware=refused":                            {"AMD-SB-1", chip},
		"/ui/fleet?outcome=denied":                              {"AMD-SB-1", chip},
		"/ui/fleet?q=a5a5":                                      {chip, "AMD-SB-1"},
		"/ui/fleet?q=192.0.2":                                   {"192.0.2.1", chip},
		"/ui/fleet?q=amd-sb-1":                                  {"AMD-SB-1", chip},
		"/ui/fleet?firmware=back":                               {"Nothing here matches", chip},
		"/ui/approvals?workload=%3Cscript%3E":                   {"&lt;script&gt;", "<script"},
		"/ui/fleet?before=x&number=" + strings.Repeat("9", 999): {chip, "Nothing here matches"},
	} {
		w := s.do("GET", path, cookie, nil)
		body := w.Body.String()
		if w.Code != http.StatusOK || !strings.Contains(body, c.has) || strings.Contains(body, c.lacks) {
			t.Errorf("%.80s: %d, has %q: %t, lacks %q: %t", path, w.Code, c.has, strings.Contains(body, c.has), c.lacks, !strings.Contains(body, c.lacks))
		}
	}
	if n := strings.Count(s.do("GET", "/ui/fleet", cookie, nil).Body.String(), "address 192.0.2.1"); n != 1 {
		t.Errorf("a hidden machine is listed %d times on a page", n)
	}
}

// manyMachines is a store with a fleet of n machines, seen a second apart.
type manyMachines struct {
	Store
	n int
}

func (s manyMachines) Fleet(_ context.Context, q store.FleetQuery, limit int) (all []store.Sighting, err error) {
	for i := range s.n {
		x := store.Sighting{Machine: fmt.Sprintf("c%0127d", i), Workload: "w", Session: fmt.Sprint(i), At: time.Unix(int64(1e9-i), 0)}
		if len(all) < limit && (q.Before.IsZero() || x.At.Before(q.Before)) {
			all = append(all, x)
		}
	}
	return all, nil
}

// TestFleetPages: a page is bounded, whatever is asked, and following the links
// shows every machine once.
func TestFleetPages(t *testing.T) {
	s := newSite(t)
	text, _ := s.token(store.Auditor, 0)
	cookie := s.login(text)
	const machines = maxScanned + 77
	s.page.Store = manyMachines{s.store, machines}
	chips := regexp.MustCompile(`title="(c[0-9]{127})"`)
	next := regexp.MustCompile(`href="(/ui/fleet\?[^"]*before=[^"]*)"`)
	walk := func(path string) (seen []string, pages int) {
		for path != "" {
			body := s.do("GET", path, cookie, nil).Body.String()
			found := chips.FindAllStringSubmatch(body, -1)
			if pages++; len(found) > pageSize || pages > machines {
				t.Fatalf("%s: %d rows on page %d", path, len(found), pages)
			}
			for _, m := range found {
				seen = append(seen, m[1])
			}
			path = ""
			if m := next.FindStringSubmatch(body); m != nil {
				path = strings.ReplaceAll(m[1], "&amp;", "&")
			}
		}
		return seen, pages
	}
	seen, pages := walk("/ui/fleet")
	slices.Sort(seen)
	if len(seen) != machines || len(slices.Compact(seen)) != machines || pages != machines/pageSize+1 {
		t.Errorf("%d machines on %d pages, expected %d once each", len(seen), pages, machines)
	}
	last := fmt.Sprintf("c%0127d", machines-1)
	if seen, pages := walk("/ui/fleet?q=" + last); len(seen) != 1 || seen[0] != last || pages != 2 {
		t.Errorf("searching: %v on %d pages", seen, pages)
	}
}

// TestJudge: what is known since comes before what the session showed, and what
// is not known is not sound.
func TestJudge(t *testing.T) {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	rec := func(claims string, rules ...kbs.Rule) *kbs.SessionRecord {
		return &kbs.SessionRecord{Result: kbs.AttestationResult{Claims: []byte(claims), Rules: rules}}
	}
	warning := kbs.Rule{Rule: "advisory:A", Pass: true}
	for _, c := range []struct {
		x    store.Sighting
		want verdict
	}{
		{store.Sighting{}, verdict{"unknown", "open", "not known"}},
		{store.Sighting{Record: rec("")}, verdict{"unknown", "open", "not known"}},
		{store.Sighting{Record: rec(`{"snp":{}}`)}, verdict{"sound", "pass", "nothing open"}},
		{store.Sighting{Record: rec(`{"snp":{}}`, warning)}, verdict{"open", "warn", "open: A"}},
		{store.Sighting{Record: rec(`{"snp":{}}`, warning, kbs.Rule{Rule: "advisory:B"})}, verdict{"refused", "fail", "refused: B"}},
		{store.Sighting{Record: rec(`{"snp":{}}`, kbs.Rule{Rule: "silicon"}, kbs.Rule{Rule: "measurement"})}, verdict{"refused", "fail", "refused: silicon"}},
		{store.Sighting{Record: rec(`{"tdx":{"tcb_status":"OutOfDate"}}`)}, verdict{"open", "warn", "open: TCB OutOfDate"}},
		{store.Sighting{Record: rec(`{"tdx":{"tcb_status":"UpToDate"}}`)}, verdict{"sound", "pass", "nothing open"}},
		{store.Sighting{Known: &kbs.Machine{Advisories: []string{"C"}}}, verdict{"open", "warn", "open: C"}},
		{store.Sighting{Known: &kbs.Machine{}}, verdict{"sound", "pass", "nothing open"}},
		{store.Sighting{Record: rec(`{"snp":{}}`), Known: &kbs.Machine{DeniedAt: &now}}, verdict{"denied", "fail", "DENIED since 2026-05-06 07:08:09"}},
		{store.Sighting{Record: rec(`{"snp":{}}`), Known: &kbs.Machine{TCB: &kbs.SNPTCB{SNP: 1}, Highest: &kbs.SNPTCB{SNP: 2}}},
			verdict{"back", "fail", "WENT BACK from " + kbs.SNPTCB{SNP: 2}.String()}},
	} {
		if got := judge(c.x); got != c.want {
			t.Errorf("%+v: %+v, expected %+v", c.x, got, c.want)
		}
	}
}

// TestChosen: only what a form offers can be asked for.
func TestChosen(t *testing.T) {
	r := httptest.NewRequest("GET", "/?"+url.Values{"outcome": {"granted"}, "firmware": {"x"}, "workload": {"a\xffb"}}.Encode(), nil)
	f := filterOf(r, filter{Outcomes: outcomes, Firmwares: verdicts})
	if f.Outcome != "granted" || f.Firmware != "" || f.Workload != "ab" || !f.Asked || f.Search != "" {
		t.Errorf("%+v", f)
	}
}
