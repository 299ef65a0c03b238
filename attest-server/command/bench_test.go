package command

import (
	"fmt"
	"os"
	"testing"
	"time"
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
