package web

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// overview is the first page: is anything wrong?
func (p *Page) overview(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here = "Overview", "/"
	type data struct {
		Sessions  []line
		Chart     chart
		Denied    int64
		Expiries  []expiryLine
		Head      kbs.AuditHead
		Signed    bool
		Witnesses Witnesses
	}
	var d data
	sessions, err := p.Store.Sessions(r.Context(), store.SessionQuery{Tenant: v.Tenant}, 8)
	if err != nil {
		return err
	}
	d.Sessions = each(sessions, lineOf)
	if d.Chart, err = p.chartOf(r, v.Tenant, ranges[0]); err != nil {
		return err
	}
	d.Denied = d.Chart.Total
	if v.Tenant != "" {
		v.Data = d
		p.show(w, r, http.StatusOK, "overview", v)
		return nil
	}
	d.Witnesses = p.witnesses()
	d.Expiries = p.expiryLines()
	d.Expiries = d.Expiries[:min(5, len(d.Expiries))]
	if d.Head, d.Signed, err = p.head(r); err != nil {
		return err
	}
	v.Data = d
	p.show(w, r, http.StatusOK, "overview", v)
	return nil
}

func (p *Page) session(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here = "Session "+r.PathValue("number"), "/ui/sessions"
	rec, err := p.Store.Session(r.Context(), r.PathValue("number"))
	if err != nil {
		return err
	}
	if !kbs.Owns(v.Tenant, rec.WorkloadID) {
		return fmt.Errorf("session %s: %w", rec.Session, store.ErrNotFound)
	}
	v.Data = explain(rec)
	p.show(w, r, http.StatusOK, "session", v)
	return nil
}

func (p *Page) denials(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here = "Denials", "/ui/denials"
	span := ranges[0]
	if i := slices.IndexFunc(ranges, func(s period) bool { return s.Name == r.URL.Query().Get("range") }); i >= 0 {
		span = ranges[i]
	}
	c, err := p.chartOf(r, v.Tenant, span)
	if err != nil {
		return err
	}
	v.Data = struct {
		Chart  chart
		Ranges []period
		Range  string
	}{c, ranges, span.Name}
	p.show(w, r, http.StatusOK, "denials", v)
	return nil
}

func (p *Page) expiry(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here, v.Data = "Expiry", "/ui/expiry", p.expiryLines()
	p.show(w, r, http.StatusOK, "expiry", v)
	return nil
}

type expiryLine struct {
	Expiry
	Soon, Over bool
}

// soon is how long before its end something is marked.
const soon = 30 * 24 * time.Hour

// expiryLines is everything that expires, soonest first.
func (p *Page) expiryLines() []expiryLine {
	if p.Expiries == nil {
		return nil
	}
	var lines []expiryLine
	for _, e := range p.Expiries() {
		rest := e.Expires.Sub(p.Clock())
		lines = append(lines, expiryLine{e, rest >= 0 && rest < soon, rest < 0})
	}
	slices.SortStableFunc(lines, func(a, b expiryLine) int { return a.Expires.Compare(b.Expires) })
	return lines
}

// left says how far away a time is.
func (p *Page) left(t time.Time) string {
	d := t.Sub(p.Clock())
	if d < 0 {
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

func span(d time.Duration) string {
	switch n := int(d / (24 * time.Hour)); {
	case n >= 2:
		return fmt.Sprintf("%d days", n)
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d/time.Minute))
	}
	return "a moment"
}

func (p *Page) head(r *http.Request) (h kbs.AuditHead, signed bool, err error) {
	h, err = p.Store.AuditHead(r.Context())
	if errors.Is(err, store.ErrNotFound) {
		return h, false, nil
	}
	return h, err == nil, err
}

// audit shows the signed head and the entries before it, latest first.
func (p *Page) audit(w http.ResponseWriter, r *http.Request, v view) error {
	v.Title, v.Here = "Audit", "/ui/audit"
	head, signed, err := p.head(r)
	if err != nil {
		return err
	}
	upTo := head.Sequence
	if n, err := strconv.ParseInt(r.URL.Query().Get("upto"), 10, 64); err == nil && n > 0 && n < upTo {
		upTo = n
	}
	page, err := p.Store.AuditPage(r.Context(), "", max(0, upTo-pageSize), 2*pageSize)
	if err != nil {
		return err
	}
	entries := slices.DeleteFunc(page.Entries, func(e kbs.AuditEntry) bool { return e.Sequence > upTo && upTo < head.Sequence })
	slices.Reverse(entries)
	v.Data = struct {
		Head      kbs.AuditHead
		Signed    bool
		Entries   []kbs.AuditEntry
		Older     int64
		Witnesses Witnesses
	}{head, signed, entries, max(0, upTo-pageSize), p.witnesses()}
	p.show(w, r, http.StatusOK, "audit", v)
	return nil
}

func (p *Page) witnesses() Witnesses {
	if p.Witnesses == nil {
		return Witnesses{}
	}
	return p.Witnesses()
}
