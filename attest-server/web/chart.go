package web

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// period is a stretch of time that a chart can show.
type period struct {
	Name  string
	Label string
	step  time.Duration
	steps int
}

var ranges = []period{
	{"2d", "48 hours", time.Hour, 48},
	{"30d", "30 days", 24 * time.Hour, 30},
	{"90d", "90 days", 24 * time.Hour, 90},
}

// chart is denials by rule over time: stacked bars in a box of chartWidth by
// chartHeight, with room for labels left and below.
type chart struct {
	Period period
	Total  int64
	Series []series // most frequent first
	Bars   []bar
	Ticks  []tick // of the time axis
	Lines  []tick // of the value axis
	Rows   []row  // the same numbers as a table, latest first
}

type series struct {
	Rule  string
	Class string // c0 to c5
	Total int64
}

type bar struct {
	X, Y, W, H float64
	Class      string
	Text       string
}

type tick struct {
	At    float64
	Label string
}

type row struct {
	From  time.Time
	Rule  string
	Count int64
}

const (
	chartWidth  = 720.0
	chartHeight = 200.0
	chartLeft   = 64.0
	chartTop    = 10.0
	maxSeries   = 6 // colours
)

// chartOf reads the denials of a period, which ends now.
func (p *Page) chartOf(r *http.Request, tenant string, span period) (chart, error) {
	end := p.Clock().UTC().Truncate(span.step).Add(span.step)
	start := end.Add(-time.Duration(span.steps) * span.step)
	counts, err := p.countDenials(r, tenant, start)
	if err != nil {
		return chart{}, err
	}
	c := chart{Period: span}
	perRule := map[string]int64{}
	cells := make([]map[string]int64, span.steps)
	for _, d := range counts {
		i := int(d.Hour.Sub(start) / span.step)
		if i < 0 || i >= span.steps {
			continue
		}
		if cells[i] == nil {
			cells[i] = map[string]int64{}
		}
		cells[i][d.Rule] += d.Count
		perRule[d.Rule] += d.Count
		c.Total += d.Count
	}
	c.rank(perRule)
	c.draw(cells, start)
	return c, nil
}

// maxCounted bounds the records that a tenant's denials are counted from: the
// counts by the hour are of all tenants together.
const maxCounted = 1000

func (p *Page) countDenials(r *http.Request, tenant string, start time.Time) ([]store.DenialCount, error) {
	if tenant == "" {
		return p.Store.Denials(r.Context(), start)
	}
	records, err := p.Store.Sessions(r.Context(), store.SessionQuery{Tenant: tenant}, maxCounted)
	if err != nil {
		return nil, err
	}
	var counts []store.DenialCount
	for _, rec := range records {
		if rec.Result.Result == kbs.Undecided {
			continue
		}
		for _, rule := range rec.Result.Rules {
			if !rec.Granted && !rule.Pass && rule.Rule != "appraisal" && !rec.At.Before(start) {
				counts = append(counts, store.DenialCount{Hour: rec.At.Truncate(time.Hour), Rule: rule.Rule, Count: 1})
			}
		}
	}
	return counts, nil
}

// rank gives the most frequent rules a colour each, and the rest one.
func (c *chart) rank(perRule map[string]int64) {
	rules := slices.SortedFunc(maps.Keys(perRule), func(a, b string) int {
		return cmp.Or(cmp.Compare(perRule[b], perRule[a]), cmp.Compare(a, b))
	})
	for i, r := range rules {
		if i == maxSeries-1 && len(rules) > maxSeries {
			var rest int64
			for _, x := range rules[i:] {
				rest += perRule[x]
			}
			c.Series = append(c.Series, series{Rule: "others", Class: fmt.Sprintf("c%d", i), Total: rest})
			return
		}
		c.Series = append(c.Series, series{Rule: r, Class: fmt.Sprintf("c%d", i), Total: perRule[r]})
	}
}

func (c *chart) draw(cells []map[string]int64, start time.Time) {
	var most int64 = 1
	for _, cell := range cells {
		var sum int64
		for _, n := range cell {
			sum += n
		}
		most = max(most, sum)
	}
	top := niceCeiling(most)
	scale := chartHeight / float64(top)
	for _, n := range []int64{0, top / 2, top} {
		if n != 0 || len(c.Lines) == 0 {
			c.Lines = append(c.Lines, tick{chartTop + chartHeight - float64(n)*scale, fmt.Sprint(n)})
		}
	}
	width := (chartWidth - chartLeft) / float64(len(cells))
	for i, cell := range cells {
		from := start.Add(time.Duration(i) * c.Period.step)
		x := chartLeft + float64(i)*width
		if i%(len(cells)/4) == 0 {
			c.Ticks = append(c.Ticks, tick{x, from.Format(c.Period.format())})
		}
		y := chartTop + chartHeight
		for _, s := range c.Series {
			n := countOf(cell, s.Rule, c.Series)
			if n == 0 {
				continue
			}
			h := float64(n) * scale
			y -= h
			c.Bars = append(c.Bars, bar{X: x + width*.1, Y: y, W: width * .8, H: h, Class: s.Class,
				Text: fmt.Sprintf("%s: %s, %d", from.Format("2006-01-02 15:04"), s.Rule, n)})
		}
		for _, rule := range sortedKeys(cell) {
			c.Rows = append(c.Rows, row{from, rule, cell[rule]})
		}
	}
	slices.Reverse(c.Rows)
}

// countOf is a series' share of a cell: "others" is all that has no name of
// its own.
func countOf(cell map[string]int64, rule string, all []series) (n int64) {
	if rule != "others" {
		return cell[rule]
	}
	for r, c := range cell {
		if !slices.ContainsFunc(all, func(s series) bool { return s.Rule == r }) {
			n += c
		}
	}
	return n
}

// niceCeiling is the least even 1, 2 or 5 times a power of ten not below n.
func niceCeiling(n int64) int64 {
	for p := int64(1); ; p *= 10 {
		for _, m := range []int64{2, 4, 10} {
			if m*p >= n {
				return m * p
			}
		}
	}
}

func (s period) format() string {
	if s.step < 24*time.Hour {
		return "Jan 2 15h"
	}
	return "Jan 2"
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
