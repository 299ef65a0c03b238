package metrics

import (
	"math"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// page is what a scrape gets.
func page(t *testing.T, r *Registry) string {
	t.Helper()
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if ct := rec.Header().Get("Content-Type"); rec.Code != 200 || ct != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("answer %d of type %q", rec.Code, ct)
	}
	return rec.Body.String()
}

// parser reads a page as Prometheus does.
func parser() *expfmt.TextParser {
	p := expfmt.NewTextParser(model.LegacyValidation)
	return &p
}

func TestText(t *testing.T) {
	r := New()
	c := r.Counter("a_total", "Things\nthat happened.", "rule")
	c.Inc(`x"\` + "\n")
	c.Add(2, "b")
	c.Inc("\xffz")
	r.Counter("quiet_total", "Nothing yet.")
	h := r.Histogram("h_seconds", "Durations.", "route")
	h.Observe(time.Millisecond, "r")
	h.Observe(time.Hour, "r")
	r.Gauge("g", "Level.", []string{"k"}, func(set func(float64, ...string)) {
		set(1.5, "v")
		set(math.Inf(1), "w")
		set(7)        // a mistake: no label
		set(9.5, "v") // another
		set(3, "\xff")
		set(4, "\xfe")
	})
	got := page(t, r)
	for _, lines := range []string{
		`# HELP a_total Things\nthat happened.
# TYPE a_total counter
a_total{rule="?z"} 1
a_total{rule="b"} 2
a_total{rule="x\"\\\n"} 1
`, `# HELP h_seconds Durations.
# TYPE h_seconds histogram
h_seconds_bucket{route="r",le="0.0005"} 0
h_seconds_bucket{route="r",le="0.001"} 1
`, `# HELP quiet_total Nothing yet.
# TYPE quiet_total counter
quiet_total 0
`, `# TYPE g gauge
g{k="?"} 3
g{k="v"} 1.5
g{k="w"} +Inf
`,
		`h_seconds_bucket{route="r",le="30"} 1` + "\n", `h_seconds_bucket{route="r",le="+Inf"} 2` + "\n",
		`h_seconds_sum{route="r"} 3600.001` + "\n", `h_seconds_count{route="r"} 2` + "\n", "\ngo_goroutines ", "\ngo_memstats_heap_alloc_bytes ",
	} {
		if !strings.Contains(got, lines) {
			t.Errorf("lacks %s:\n%s", lines, got)
		}
	}
	families, err := parser().TextToMetricFamilies(strings.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	if v := families["a_total"].GetMetric()[2].GetLabel()[0].GetValue(); v != `x"\`+"\n" {
		t.Errorf("read back as %q", v)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	r := New()
	c, h := r.Counter("a_total", "", "peer"), r.Histogram("a_seconds", "", "peer")
	for i := range 3 * maxSeries {
		c.Inc(strconv.Itoa(i))
		h.Observe(time.Second, strconv.Itoa(i))
	}
	c.Inc("too", "many")
	c.Inc()
	families, err := parser().TextToMetricFamilies(strings.NewReader(page(t, r)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"a_total": 2*maxSeries + 2, "a_seconds": 2 * maxSeries} {
		series := families[name].GetMetric()
		if len(series) != maxSeries+1 {
			t.Errorf("%s: %d series", name, len(series))
		}
		last := series[len(series)-1]
		got := last.GetCounter().GetValue() + float64(last.GetHistogram().GetSampleCount())
		if last.GetLabel()[0].GetValue() != other || got != want {
			t.Errorf("%s: %v, expected %v of %q", name, last, want, other)
		}
	}
}

// TestConcurrentScrape: what is counted while it is shown is counted once, and
// each page can be read.
func TestConcurrentScrape(t *testing.T) {
	r := New()
	c, h := r.Counter("a_total", "", "peer"), r.Histogram("a_seconds", "", "peer")
	const workers, each = 8, 300
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := range each {
				c.Inc(strconv.Itoa(w*each + i))
				h.Observe(time.Millisecond, strconv.Itoa(i))
			}
		})
	}
	for range 20 {
		if _, err := parser().TextToMetricFamilies(strings.NewReader(page(t, r))); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	families, err := parser().TextToMetricFamilies(strings.NewReader(page(t, r)))
	if err != nil {
		t.Fatal(err)
	}
	counted, observed := 0., uint64(0)
	for _, m := range families["a_total"].GetMetric() {
		counted += m.GetCounter().GetValue()
	}
	for _, m := range families["a_seconds"].GetMetric() {
		observed += m.GetHistogram().GetSampleCount()
	}
	if counted != workers*each || observed != workers*each {
		t.Errorf("%v and %d, expected %d", counted, observed, workers*each)
	}
}
