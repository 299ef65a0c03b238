package metrics

import (
	"bufio"
	"strings"
	"time"
)

// Counter counts up.
type Counter struct {
	description
	table[float64]
}

// Counter makes a counter. Its name ends in _total.
func (r *Registry) Counter(name, help string, labels ...string) *Counter {
	c := &Counter{description: description{name, help, labels}}
	if len(labels) == 0 {
		c.Add(0) // shown from the start
	}
	r.add(c)
	return c
}

// Inc adds one under the values of the labels.
func (c *Counter) Inc(values ...string) { c.Add(1, values...) }

// Add adds n, which is not negative.
func (c *Counter) Add(n float64, values ...string) {
	c.update(len(c.labels), values, func(v *float64) { *v += n })
}

func (c *Counter) write(w *bufio.Writer) {
	c.head(w, "counter")
	c.each(func(values []string, v *float64) { c.sample(w, "", values, "", "", *v) })
}

// Histogram counts durations in buckets.
type Histogram struct {
	description
	table[distribution]
}

type distribution struct {
	counts [len(buckets) + 1]uint64
	sum    float64
}

// buckets are upper bounds in seconds: appraisals take a millisecond, a slow
// disk's flush a tenth of a second, a dead peer the time limits.
var buckets = [...]float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

// Histogram makes a histogram of durations. Its name ends in _seconds.
func (r *Registry) Histogram(name, help string, labels ...string) *Histogram {
	h := &Histogram{description: description{name, help, labels}}
	r.add(h)
	return h
}

// Observe counts a duration under the values of the labels.
func (h *Histogram) Observe(d time.Duration, values ...string) {
	s := d.Seconds()
	i := 0
	for i < len(buckets) && s > buckets[i] {
		i++
	}
	h.update(len(h.labels), values, func(v *distribution) {
		v.counts[i]++
		v.sum += s
	})
}

func (h *Histogram) write(w *bufio.Writer) {
	h.head(w, "histogram")
	h.each(func(values []string, v *distribution) {
		var n uint64
		for i, c := range v.counts {
			n += c
			le := "+Inf"
			if i < len(buckets) {
				le = number(buckets[i])
			}
			h.sample(w, "_bucket", values, "le", le, float64(n))
		}
		h.sample(w, "_sum", values, "", "", v.sum)
		h.sample(w, "_count", values, "", "", float64(n))
	})
}

// reading is a metric whose values are asked for when it is shown.
type reading struct {
	description
	kind string
	read func(set func(v float64, values ...string))
}

// Gauge makes a gauge. read calls set once for each combination of label
// values, with all of them; of several with the same the first counts.
func (r *Registry) Gauge(name, help string, labels []string, read func(set func(v float64, values ...string))) {
	r.add(&reading{description{name, help, labels}, "gauge", read})
}

// CounterFunc makes a counter that is kept elsewhere.
func (r *Registry) CounterFunc(name, help string, labels []string, read func(set func(v float64, values ...string))) {
	r.add(&reading{description{name, help, labels}, "counter", read})
}

func (g *reading) write(w *bufio.Writer) {
	g.head(w, g.kind)
	// Two samples of one series would make Prometheus refuse the whole page.
	seen := map[string]bool{}
	g.read(func(v float64, values ...string) {
		id := strings.Join(values, "\xff")
		if len(values) == len(g.labels) && !seen[id] {
			seen[id] = true
			g.sample(w, "", values, "", "", v)
		}
	})
}
