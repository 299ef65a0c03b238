// Package metrics counts what the server does and shows it in the Prometheus
// text format, version 0.0.4. It is written here because the few types the
// server uses are smaller than the code they would otherwise bring into the
// trust anchor.
package metrics

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// maxSeries bounds the label values of one metric; further ones are counted
// together as "other", so that no peer can fill memory by inventing some.
const maxSeries = 512

const other = "other"

// Registry holds metrics in the order they were made. The zero value is
// empty and ready. It is safe for concurrent use.
type Registry struct {
	mu       sync.Mutex
	families []family
}

type family interface{ write(*bufio.Writer) }

func (r *Registry) add(f family) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.families = append(r.families, f)
}

// WriteTo writes every metric.
func (r *Registry) WriteTo(w io.Writer) (int64, error) {
	r.mu.Lock()
	families := slices.Clone(r.families)
	r.mu.Unlock()
	counted := &countingWriter{w: w}
	b := bufio.NewWriter(counted)
	for _, f := range families {
		f.write(b)
	}
	err := b.Flush()
	return counted.n, err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// Handler answers GET with every metric.
func (r *Registry) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = r.WriteTo(w) // the peer may be gone
	})
}

// description is what all kinds of metric have.
type description struct {
	name, help string
	labels     []string
}

func (d *description) head(w *bufio.Writer, kind string) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", d.name, escape(d.help, false), d.name, kind)
}

// sample writes one line. extra is one more label, for buckets.
func (d *description) sample(w *bufio.Writer, suffix string, values []string, extra, extraValue string, v float64) {
	w.WriteString(d.name)
	w.WriteString(suffix)
	sep := byte('{')
	put := func(label, value string) {
		w.WriteByte(sep)
		sep = ','
		fmt.Fprintf(w, `%s="%s"`, label, escape(value, true))
	}
	for i, l := range d.labels {
		put(l, values[i])
	}
	if extra != "" {
		put(extra, extraValue)
	}
	if sep == ',' {
		w.WriteByte('}')
	}
	w.WriteByte(' ')
	w.WriteString(number(v))
	w.WriteByte('\n')
}

func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

func escape(s string, quotes bool) string {
	s = strings.ReplaceAll(strings.ReplaceAll(strings.ToValidUTF8(s, "?"), `\`, `\\`), "\n", `\n`)
	if quotes {
		s = strings.ReplaceAll(s, `"`, `\"`)
	}
	return s
}

// table maps label values to what is counted under them.
type table[V any] struct {
	mu     sync.Mutex
	series map[string]*entry[V]
}

type entry[V any] struct {
	values []string
	v      V
}

// update runs f on the entry of these values, or of "other" if there are too
// many already. Too few or too many values are a mistake of ours: they are
// counted as "other", too.
func (t *table[V]) update(labels int, values []string, f func(*V)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.series == nil {
		t.series = map[string]*entry[V]{}
	}
	id := strings.Join(values, "\xff")
	e := t.series[id]
	if e == nil && (len(t.series) >= maxSeries || len(values) != labels) {
		values = slices.Repeat([]string{other}, labels)
		id = strings.Join(values, "\xff")
		e = t.series[id]
	}
	if e == nil {
		e = &entry[V]{values: slices.Clone(values)}
		t.series[id] = e
	}
	f(&e.v)
}

// each calls f with every entry, sorted by label values.
func (t *table[V]) each(f func(values []string, v *V)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ids := make([]string, 0, len(t.series))
	for id := range t.series {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		f(t.series[id].values, &t.series[id].v)
	}
}
