package metrics

import (
	"math"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestText(t *testing.T) {
	var r Registry
	c := r.Counter("a_total", "Things\nthat happened.", "rule")
	c.Inc(`x"\` + "\n")
	c.Add(2, "b")
	r.Counter("quiet_total", "Nothing yet.")
	h := r.Histogram("h_seconds", "Durations.", "route")
	h.Observe(time.Millisecond, "r")
	h.Observe(time.Hour, "r")
	r.Gauge("g", "Level.", []string{"k"}, func(set func(float64, ...string)) {
		set(1.5, "v")
		set(math.Inf(1), "w")
		set(7)        // a mistake: no label
		set(9.5, "v") // another
	})
	rec := httptest.NewRecorder()
	r.Handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	want := `# HELP a_total Things\nthat happened.
# TYPE a_total counter
a_total{rule="b"} 2
a_total{rule="x\"\\\n"} 1
# HELP quiet_total Nothing yet.
# TYPE quiet_total counter
quiet_total 0
# HELP h_seconds Durations.
# TYPE h_seconds histogram
h_seconds_bucket{route="r",le="0.0005"} 0
h_seconds_bucket{route="r",le="0.001"} 1
`
	got := rec.Body.String()
	if !strings.HasPrefix(got, want) {
		t.Errorf("got\n%s\nexpected\n%s", got, want)
	}
	for _, line := range []string{
		`h_seconds_bucket{route="r",le="30"} 1`, `h_seconds_bucket{route="r",le="+Inf"} 2`,
		`h_seconds_sum{route="r"} 3600.001`, `h_seconds_count{route="r"} 2`, `g{k="v"} 1.5`, `g{k="w"} +Inf`,
	} {
		if !strings.Contains(got, "\n"+line+"\n") {
			t.Errorf("lacks %s:\n%s", line, got)
		}
	}
	if strings.Count(got, `g{k="v"}`) != 1 {
		t.Errorf("one series has two samples:\n%s", got)
	}
	if ct := rec.Header().Get("Content-Type"); ct != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("type %q", ct)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	var r Registry
	c := r.Counter("a_total", "", "peer")
	for i := range 3 * maxSeries {
		c.Inc(strconv.Itoa(i))
	}
	c.Inc("too", "many")
	var b strings.Builder
	if n, err := r.WriteTo(&b); err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v", n, err)
	}
	if n := strings.Count(b.String(), "\na_total{"); n != maxSeries+1 {
		t.Errorf("%d series", n)
	}
	if want := "a_total{peer=\"other\"} " + strconv.Itoa(2*maxSeries+1); !strings.Contains(b.String(), want) {
		t.Errorf("lacks %q", want)
	}
}
