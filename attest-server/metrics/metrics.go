// Package metrics counts what the server does and shows it as Prometheus reads
// it. The counting is Prometheus' own client's, in a registry of its own. What
// is added here bounds it: no peer can fill memory, nor spoil the page, by what
// he has counted.
package metrics

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
)

// maxSeries bounds the label values of one metric; further ones are counted
// together as "other".
const maxSeries = 512

const other = "other"

// Registry holds metrics. It is safe for concurrent use.
type Registry struct{ registry *prometheus.Registry }

// New makes a registry that shows what the Go runtime says of this process,
// and what is added.
func New() *Registry {
	r := &Registry{prometheus.NewRegistry()}
	r.registry.MustRegister(collectors.NewGoCollector())
	return r
}

// Handler answers GET with every metric in the text format, version 0.0.4.
func (r *Registry) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		families, err := r.registry.Gather()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		format := expfmt.NewFormat(expfmt.TypeTextPlain)
		w.Header().Set("Content-Type", string(format))
		encoder := expfmt.NewEncoder(w, format)
		for _, f := range families {
			_ = encoder.Encode(f) // the peer may be gone
		}
	})
}

// Counter counts up.
type Counter struct {
	vector *prometheus.CounterVec
	series series
}

// Counter makes a counter. Its name ends in _total.
func (r *Registry) Counter(name, help string, labels ...string) *Counter {
	c := &Counter{vector: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels), series: series{labels: len(labels)}}
	if len(labels) == 0 {
		c.vector.WithLabelValues() // shown from the start
	}
	r.registry.MustRegister(c.vector)
	return c
}

// Inc adds one under the values of the labels.
func (c *Counter) Inc(values ...string) { c.Add(1, values...) }

// Add adds n, which is not negative.
func (c *Counter) Add(n float64, values ...string) {
	c.vector.WithLabelValues(c.series.bound(values)...).Add(n)
}

// Histogram counts durations in buckets.
type Histogram struct {
	vector *prometheus.HistogramVec
	series series
}

// buckets are upper bounds in seconds: appraisals take a millisecond, a slow
// disk's flush a tenth of a second, a dead peer the time limits.
func buckets() []float64 {
	return []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
}

// Histogram makes a histogram of durations. Its name ends in _seconds.
func (r *Registry) Histogram(name, help string, labels ...string) *Histogram {
	h := &Histogram{
		vector: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets()}, labels),
		series: series{labels: len(labels)},
	}
	r.registry.MustRegister(h.vector)
	return h
}

// Observe counts a duration under the values of the labels.
func (h *Histogram) Observe(d time.Duration, values ...string) {
	h.vector.WithLabelValues(h.series.bound(values)...).Observe(d.Seconds())
}

// series are the label values that one metric has.
type series struct {
	labels int
	mu     sync.Mutex
	known  map[string]bool
}

// bound returns values, or "other" for each if there are too many series
// already. Too few or too many values are a mistake of ours: they are counted
// as "other", too.
func (s *series) bound(values []string) []string {
	values = valid(values)
	s.mu.Lock()
	defer s.mu.Unlock()
	id := strings.Join(values, "\xff")
	if len(values) != s.labels || !s.known[id] && len(s.known) >= maxSeries {
		return slices.Repeat([]string{other}, s.labels)
	}
	if s.known == nil {
		s.known = map[string]bool{}
	}
	s.known[id] = true
	return values
}

// valid replaces what is no UTF-8, which the format does not allow.
func valid(values []string) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = strings.ToValidUTF8(v, "?")
	}
	return all
}

// reading is a metric whose values are asked for when it is shown.
type reading struct {
	description *prometheus.Desc
	labels      int
	kind        prometheus.ValueType
	read        func(set func(v float64, values ...string))
}

// Gauge makes a gauge. read calls set once for each combination of label
// values, with all of them; of several with the same the first counts.
func (r *Registry) Gauge(name, help string, labels []string, read func(set func(v float64, values ...string))) {
	r.registry.MustRegister(&reading{prometheus.NewDesc(name, help, labels, nil), len(labels), prometheus.GaugeValue, read})
}

// CounterFunc makes a counter that is kept elsewhere.
func (r *Registry) CounterFunc(name, help string, labels []string, read func(set func(v float64, values ...string))) {
	r.registry.MustRegister(&reading{prometheus.NewDesc(name, help, labels, nil), len(labels), prometheus.CounterValue, read})
}

// Describe implements prometheus.Collector.
func (g *reading) Describe(out chan<- *prometheus.Desc) { out <- g.description }

// Collect implements prometheus.Collector. Two samples of one series would make
// the registry refuse the whole page.
func (g *reading) Collect(out chan<- prometheus.Metric) {
	seen := map[string]bool{}
	g.read(func(v float64, values ...string) {
		values = valid(values)
		id := strings.Join(values, "\xff")
		m, err := prometheus.NewConstMetric(g.description, g.kind, v, values...)
		if err == nil && !seen[id] {
			seen[id] = true
			out <- m
		}
	})
}
