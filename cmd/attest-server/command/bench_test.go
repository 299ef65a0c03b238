package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// These run whole processes, once: use -benchtime 1x. BENCH_SECONDS is how
// long each measures (default 6), BENCH_ROUNDS how often it changes between
// what it compares (default 3).

func setting[T any](b *testing.B, name string, def T, parse func(string) (T, error)) T {
	b.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	v, err := parse(text)
	if err != nil {
		b.Fatalf("%s=%q: %v", name, text, err)
	}
	return v
}

func seconds(s string) (time.Duration, error) { return time.ParseDuration(s + "s") }

func number(s string) (n int, err error) {
	_, err = fmt.Sscan(s, &n)
	return n, err
}

// load is a server under test, its floor and its guests.
type load struct {
	*testing.B
	dir, token, url, floorAddress string
	server, floor                 int // process ids
	guests                        *guests
	rounds                        int
	window                        time.Duration
}

func newLoad(b *testing.B, config string) *load {
	b.Helper()
	l := &load{B: b, rounds: setting(b, "BENCH_ROUNDS", 3, number)}
	l.window = setting(b, "BENCH_SECONDS", 6*time.Second, seconds) / time.Duration(2*l.rounds)
	l.dir, l.token = initDir(b)
	var env []string
	l.guests, env = newGuests(b, l.dir)
	file := l.dir + "/config.toml"
	if err := os.WriteFile(file, []byte("max_sessions = 4000000\n"+config), 0o600); err != nil {
		b.Fatal(err)
	}
	if strings.Contains(config, "[[witness]]") {
		mustRun(b, "audit", "introduce", "--data", l.dir, "--config", file)
	}
	cmd, url := start(b, env, "--data", l.dir, "--config", file)
	floor, address := startFloor(b, l.dir)
	l.url, l.server, l.floorAddress, l.floor = url, cmd.Process.Pid, address, floor.Process.Pid
	l.guests.register(b, l.dir, url, l.token)
	return l
}

func (l *load) handshake(int) error { return l.guests.handshake(l.url, "127.0.0.1") }

// against has n guests ask the server, then the floor, in turn, and reports
// both by latency and by the processor time of the process that serves.
func (l *load) against(n int) {
	toFloor := floorClient(l, l.dir, l.floorAddress)
	crowd(l, 2, 100*time.Millisecond, l.handshake) // the chain is known now
	var cpus, rates, p50s, p99s, perCPU []float64
	for range l.rounds {
		c0, t0 := cpu(l, l.server), time.Now()
		ours := crowd(l, n, l.window, l.handshake)
		c1, t1 := cpu(l, l.server), time.Now()
		f0 := cpu(l, l.floor)
		t2 := time.Now()
		theirs := crowd(l, n, l.window, toFloor)
		f1, t3 := cpu(l, l.floor), time.Now()
		our, their := (c1-c0).Seconds()/float64(len(ours)), (f1-f0).Seconds()/float64(len(theirs))
		cpus, perCPU = append(cpus, our/their), append(perCPU, 1/our)
		rates = append(rates, float64(len(theirs))/t3.Sub(t2).Seconds()/(float64(len(ours))/t1.Sub(t0).Seconds()))
		p50s = append(p50s, quantile(ours, 0.5).Seconds()/quantile(theirs, 0.5).Seconds())
		p99s = append(p99s, quantile(ours, 0.99).Seconds()/quantile(theirs, 0.99).Seconds())
		l.Logf("%d guests: %.0f handshakes a second of one core (%.0f on the wall), p50 %v p99 %v; floor %.0f (%.0f), p50 %v p99 %v", n,
			1/our, float64(len(ours))/t1.Sub(t0).Seconds(), quantile(ours, 0.5).Round(time.Microsecond), quantile(ours, 0.99).Round(time.Microsecond),
			1/their, float64(len(theirs))/t3.Sub(t2).Seconds(), quantile(theirs, 0.5).Round(time.Microsecond), quantile(theirs, 0.99).Round(time.Microsecond))
	}
	l.ReportMetric(0, "ns/op")
	l.ReportMetric(median(cpus), "x-floor-cpu")
	l.ReportMetric(median(rates), "x-floor-wall")
	l.ReportMetric(median(p50s), "x-floor-p50")
	l.ReportMetric(median(p99s), "x-floor-p99")
	l.ReportMetric(median(perCPU), "handshakes/core-s")
}

// BenchmarkServerHandshake is auth, attest with an SNP report, and key, over a
// new connection each, against a TLS handshake and one P-384 verification.
func BenchmarkServerHandshake(b *testing.B) { newLoad(b, "").against(16) }

// BenchmarkServerCrowd is 500 guests at once.
func BenchmarkServerCrowd(b *testing.B) { newLoad(b, "").against(500) }

// BenchmarkServerCheckpoints is what witnesses cost: handshakes of a server that
// shows a checkpoint every second, and has it in each answer, against one without.
func BenchmarkServerCheckpoints(b *testing.B) {
	without := newLoad(b, "")
	with := newLoad(b, fmt.Sprintf("witness_interval = \"1s\"\n[[witness]]\nname = \"w\"\nurl = %q\n", "file://"+b.TempDir()))
	var ratios []float64
	for range 2 * with.rounds {
		var each [2]float64
		for i, l := range []*load{without, with} {
			before := cpu(b, l.server)
			n := len(crowd(l, 16, l.window, l.handshake))
			each[i] = (cpu(b, l.server) - before).Seconds() / float64(n)
		}
		ratios = append(ratios, each[1]/each[0])
		b.Logf("a handshake takes %.0f µs of processor time, with checkpoints %.0f", each[0]*1e6, each[1]*1e6)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios), "x-without-cpu")
}

// memory is what the server holds: of the system's memory, and live on its heap.
type memory struct{ rss, heap float64 } // MiB

func (l *load) memory(metrics string) memory {
	l.Helper()
	var u memory
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.server))
	if err != nil {
		l.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			_, err = fmt.Sscan(rest, &u.rss)
		}
	}
	resp, err2 := http.Get("http://" + metrics + "/metrics")
	if err = errors.Join(err, err2); err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		l.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "go_memstats_heap_alloc_bytes "); ok {
			_, err = fmt.Sscan(rest, &u.heap)
		}
	}
	if err != nil || u.rss == 0 || u.heap == 0 {
		l.Fatalf("memory %+v: %v", u, err)
	}
	return memory{u.rss / 1024, u.heap/(1<<20) - heapFloor/(1<<20)}
}

// freePort is a loopback address nobody listens on just now.
func freePort(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// BenchmarkServerSoak has guests attest for BENCH_SOAK (20s; the real one: 10m)
// and compares the server's memory in the second and the last quarter: the
// first is the tables' filling up.
func BenchmarkServerSoak(b *testing.B) {
	metrics := freePort(b)
	l := newLoad(b, fmt.Sprintf("session_life = \"2s\"\nsession_records = 1000\nmetrics_listen = %q\n", metrics))
	total := setting(b, "BENCH_SOAK", 20*time.Second, time.ParseDuration)
	const samples = 40
	var seen []memory
	n := 0
	for range samples {
		n += len(crowd(l, 16, total/samples, l.handshake))
		seen = append(seen, l.memory(metrics))
	}
	mean := func(part []memory) (u memory) {
		for _, x := range part {
			u.rss, u.heap = u.rss+x.rss/float64(len(part)), u.heap+x.heap/float64(len(part))
		}
		return u
	}
	early, late := mean(seen[samples/4:samples/2]), mean(seen[samples*3/4:])
	b.Logf("%d handshakes in %v; RSS %.1f, then %.1f MiB; heap %.1f, then %.1f MiB", n, total, early.rss, late.rss, early.heap, late.heap)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(late.rss/early.rss, "x-rss")
	b.ReportMetric(late.heap/early.heap, "x-heap")
	b.ReportMetric(late.rss, "MiB-rss")
	if late.rss > 1.2*early.rss+4 {
		b.Errorf("memory is not flat: %+v", seen)
	}
}

// flood sends n requests for a session from one address, over connections
// that it opens again whenever they are closed, and counts the answers by
// status; 0 is none.
func (l *load) flood(n int) map[int]int {
	const clients = 16
	var mu sync.Mutex
	answers := map[int]int{}
	var wg sync.WaitGroup
	body, err := json.Marshal(kbs.AuthRequest{Version: 1, TEE: kbs.Sample, WorkloadID: loadWorkload})
	if err != nil {
		l.Fatal(err)
	}
	for range clients {
		wg.Go(func() {
			mine := map[int]int{}
			c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: tlsRoots(admin(l, l.dir, "", "").RootCAs), MaxConnsPerHost: 1}}
			defer c.CloseIdleConnections()
			for range n / clients {
				resp, err := c.Post(l.url+"/v1/auth", "application/json", bytes.NewReader(body))
				if err != nil {
					mine[0]++
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				mine[resp.StatusCode]++
			}
			mu.Lock()
			defer mu.Unlock()
			for status, k := range mine {
				answers[status] += k
			}
		})
	}
	wg.Wait()
	return answers
}

// BenchmarkServerFlood sends BENCH_FLOOD (20000; the real one: 100000) requests
// for sessions: once with no limit, for what they cost in memory, and once
// with the limits as they are by default, for what others notice of it. The
// flood runs on the same machine as server and guests, so their time is also
// compared while the same flood hits a port where nobody answers.
func BenchmarkServerFlood(b *testing.B) {
	n := setting(b, "BENCH_FLOOD", 20000, number)
	b.Run("unlimited", func(b *testing.B) {
		metrics := freePort(b)
		l := newLoad(b, fmt.Sprintf("session_life = \"2s\"\naddress_rate = -1.0\nmetrics_listen = %q\n", metrics))
		crowd(l, 4, 2*time.Second, l.handshake)
		l.flood(n / 10)
		before, busy := l.memory(metrics), cpu(l, l.server)
		answers := l.flood(n)
		after, used := l.memory(metrics), cpu(l, l.server)-busy
		b.Logf("answers %v; RSS %.1f, then %.1f MiB; heap %.1f, then %.1f MiB", answers, before.rss, after.rss, before.heap, after.heap)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(used.Seconds()*1e6/float64(n), "µs-cpu/auth")
		b.ReportMetric(after.rss/before.rss, "x-rss")
		if answers[200] != n/16*16 || after.rss > 1.2*before.rss+4 {
			b.Errorf("%v answers, memory %+v, before %+v", answers, after, before)
		}
	})
	b.Run("limited", func(b *testing.B) {
		metrics := freePort(b)
		l := newLoad(b, fmt.Sprintf("session_life = \"2s\"\naddress_exempt = []\nmetrics_listen = %q\n", metrics))
		var calls atomic.Int64
		healthy := func(int) error { // an address each, as many guests have
			return l.guests.handshake(l.url, fmt.Sprintf("127.0.1.%d", 1+calls.Add(1)%250))
		}
		crowd(l, 8, 2*time.Second, healthy) // memory has its usual size now
		quiet := crowd(l, 1, l.window*2, healthy)
		before := l.memory(metrics)
		answers := make(chan map[int]int, 1)
		go func() { answers <- l.flood(n) }()
		var during []time.Duration
		var got map[int]int
		for got == nil {
			during = append(during, crowd(l, 1, 200*time.Millisecond, healthy)...)
			select {
			case got = <-answers:
			default:
			}
		}
		slices.Sort(during)
		after, again := l.memory(metrics), crowd(l, 1, l.window*2, healthy)
		closed := *l
		closed.url = "https://" + freePort(b)
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			closed.flood(n)
		}()
		var control []time.Duration
		for running := true; running; {
			control = append(control, crowd(l, 1, 200*time.Millisecond, healthy)...)
			select {
			case <-stop:
				running = false
			default:
			}
		}
		slices.Sort(control)
		b.Logf("answers %v; p50 of a healthy guest %v, during the flood %v (to nobody %v), after %v; RSS %.1f, then %.1f MiB", got,
			quantile(quiet, 0.5), quantile(during, 0.5), quantile(control, 0.5), quantile(again, 0.5), before.rss, after.rss)
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(quantile(during, 0.5).Seconds()/quantile(control, 0.5).Seconds(), "x-during")
		b.ReportMetric(quantile(again, 0.5).Seconds()/quantile(quiet, 0.5).Seconds(), "x-after")
		b.ReportMetric(after.rss/before.rss, "x-rss")
	})
}
