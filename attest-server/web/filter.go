package web

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// filter is what the reader asks a list for. It is the form above the list, too.
type filter struct {
	Path                string // of the page
	Hint                string // what is searched
	Search, Workload    string // Workload: exactly that
	Firmware, Outcome   string
	Firmwares, Outcomes []choice // nil: not to be chosen
	Asked               bool     // for less than everything
}

// choice is a value of a field.
type choice struct{ Value, Label string }

// maxAsked bounds what is taken of a field. No name is longer.
const maxAsked = 256

// filterOf reads the form. What is not among the choices is not asked for.
func filterOf(r *http.Request, f filter) filter {
	f.Workload, f.Firmware, f.Outcome = field(r, "workload"), chosen(r, "firmware", f.Firmwares), chosen(r, "outcome", f.Outcomes)
	if f.Hint != "" {
		f.Search = strings.TrimSpace(field(r, "q"))
	}
	f.Asked = f.Search != "" || f.Workload != "" || f.Firmware != "" || f.Outcome != ""
	return f
}

func field(r *http.Request, name string) string {
	s := r.URL.Query().Get(name)
	return strings.ToValidUTF8(s[:min(len(s), maxAsked)], "")
}

func chosen(r *http.Request, name string, all []choice) string {
	for _, c := range all {
		if c.Value == r.URL.Query().Get(name) {
			return c.Value
		}
	}
	return ""
}

// has says whether one of the texts has what is searched for, in whatever case.
func (f filter) has(texts ...string) bool {
	for _, t := range texts {
		if strings.Contains(strings.ToLower(t), strings.ToLower(f.Search)) {
			return true
		}
	}
	return f.Search == ""
}

// from is the page's address with this filter, from a place in the list on.
func (f filter) from(place url.Values) string {
	for name, value := range map[string]string{"q": f.Search, "workload": f.Workload, "firmware": f.Firmware, "outcome": f.Outcome} {
		if value != "" {
			place.Set(name, value)
		}
	}
	return f.Path + "?" + place.Encode()
}

// listing is one page of a list, with the form above it.
type listing[T any] struct {
	Filter filter
	Rows   []T
	Next   string // address of the next page; empty: there is none
}

// pageSize is how many rows of a list are shown at once.
const pageSize = 50

// maxScanned bounds the rows that are read for one page. A filter that few rows
// match goes on with the next page.
const maxScanned = 500

// scan reads rows from a place on until a page of those that match is full. next
// is the place of the last that was read, if there are more.
func scan[T, P any](from P, read func(from P, limit int) ([]T, error), placeOf func(T) P, matches func(T) bool) (found []T, next P, more bool, err error) {
	next = from
	for scanned := 0; scanned < maxScanned; {
		rows, err := read(next, pageSize+1)
		if err != nil {
			return nil, next, false, err
		}
		for i, row := range rows[:min(len(rows), pageSize)] {
			next, scanned = placeOf(row), scanned+1
			if !matches(row) {
				continue
			}
			if found = append(found, row); len(found) == pageSize {
				return found, next, i+1 < len(rows), nil
			}
		}
		if len(rows) <= pageSize {
			return found, next, false, nil
		}
	}
	return found, next, true, nil
}

// moment is a place in a list that has the latest first: a time, and a session
// that tells those of one time apart.
type moment struct {
	at      time.Time
	session string
}

func momentOf(r *http.Request) (m moment) {
	if ms, err := strconv.ParseInt(r.URL.Query().Get("before"), 10, 64); err == nil && ms > 0 {
		m.at = time.UnixMilli(ms)
	}
	m.session = field(r, "number")
	return m
}

func (m moment) values() url.Values {
	return url.Values{"before": {strconv.FormatInt(m.at.UnixMilli(), 10)}, "number": {m.session}}
}

// listed is the page of a list that has the latest first.
func listed[T any](r *http.Request, f filter, read func(from moment, limit int) ([]T, error), placeOf func(T) moment, matches func(T) bool) (l listing[T], err error) {
	rows, next, more, err := scan(momentOf(r), read, placeOf, matches)
	l = listing[T]{Filter: f, Rows: rows}
	if more {
		l.Next = f.from(next.values())
	}
	return l, err
}

func each[A, B any](all []A, f func(A) B) []B {
	out := make([]B, 0, len(all))
	for _, a := range all {
		out = append(out, f(a))
	}
	return out
}
