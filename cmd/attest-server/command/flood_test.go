package command

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/luks"
)

// What a server under flood may take: that of its unit, and above what it has
// when idle.
const (
	floodMemLimit = "768MiB"
	floodMaxRSS   = 256 << 20
)

// howMuchFlood is from how many connections the test floods, and how many guests
// are to be served meanwhile; the benchmark makes a flood of 900.
func howMuchFlood() (connections, guests int) {
	if os.Getenv("CCRUN_LONG") == "" {
		return 24, 1
	}
	return 64, 2
}

// flooded is a server that is being flooded from addresses which no limit by
// address exempts.
type flooded struct {
	testing.TB
	guests     *guests
	pid        int
	url, token string
	dir        string
	idle       int64 // bytes of memory before
}

func newFlooded(t testing.TB) *flooded {
	t.Helper()
	dir, token := initDir(t)
	g, env := newGuests(t, dir)
	config := filepath.Join(t.TempDir(), "attest-server.toml")
	text := "address_exempt = [\"127.0.0.1/32\"]\ndialects = [\"native\", \"trustee\", \"legacy\"]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, url := start(t, append(env, "GOMEMLIMIT="+floodMemLimit), "--data", dir, "--config", config)
	g.register(t, dir, url, token)
	f := &flooded{TB: t, guests: g, pid: cmd.Process.Pid, url: url, token: token, dir: dir}
	if err := g.handshake(url, "127.0.1.1"); err != nil {
		t.Fatal(err)
	}
	f.idle = f.rss()
	return f
}

// rss is the server's resident memory, in bytes; 0 if it is dead.
func (f *flooded) rss() int64 {
	f.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", f.pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			if err != nil {
				f.Fatal(err)
			}
			return kib << 10
		}
	}
	return 0
}

// dial opens a connection from an address; with TLS, its handshake is done.
func (f *flooded) dial(ctx context.Context, from string, withTLS bool) (net.Conn, error) {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(f.url, "https://"))
	if err != nil || !withTLS {
		return c, err
	}
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) // a flooder does not care
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t, nil
}

// body sends a request whose body lacks its last byte, and waits until it is
// answered or cut off.
func (f *flooded) body(ctx context.Context, from, path, header string, size int) {
	c, err := f.dial(ctx, from, true)
	if err != nil {
		return
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n", path, header, size)
	_, _ = c.Write(bytes.Repeat([]byte(" "), size-1))
	_, _ = c.Read(make([]byte, 1))
}

// session is the header of an open trustee session of a TD, whose body may be
// the largest.
func (f *flooded) session(ctx context.Context, from string) string {
	c, err := f.dial(ctx, from, true)
	if err != nil {
		return ""
	}
	defer c.Close()
	const auth = `{"version":"0.4.0","tee":"sample","extra-params":""}`
	fmt.Fprintf(c, "POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(auth), auth)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	for _, cookie := range resp.Cookies() {
		return "Cookie: " + cookie.Name + "=" + cookie.Value + "\r\n"
	}
	return ""
}

// call is a request of an owner's, whose answer does not matter.
func (f *flooded) call(ctx context.Context, method, path string, body []byte) {
	req, err := http.NewRequestWithContext(ctx, method, f.url+path, bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}}
	resp, err := client.Do(req)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}

// dearest is a request to rotate with the keyslot that costs most of those that
// are taken.
func dearest(t testing.TB) []byte {
	t.Helper()
	k := luks.PassphraseKDF()
	slot := kbs.Keyslot{
		KDF:      kbs.KeyslotKDF{Type: k.Type, Salt: make([]byte, 32), Iterations: k.Iterations, MemoryKiB: k.MemoryKiB, Threads: k.Threads},
		KeyBytes: 64, Area: make([]byte, 256_000/4096*4096+4096), DigestSalt: make([]byte, 32), DigestIterations: 1000, Digest: make([]byte, 32),
	}
	_, _ = rand.Read(slot.Area)
	b, err := json.Marshal(kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: slot}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// floods are what one connection of a flood does again and again.
func (f *flooded) floods() map[string]func(ctx context.Context, from string) {
	rotate := dearest(f)
	return map[string]func(ctx context.Context, from string){
		"bodies": func(ctx context.Context, from string) { f.body(ctx, from, "/kbs/v0/attest", "", 1<<20) },
		"bodies in sessions": func(ctx context.Context, from string) {
			f.body(ctx, from, "/kbs/v0/attest", f.session(ctx, from), 1<<20)
		},
		"handshakes": func(ctx context.Context, from string) {
			if c, err := f.dial(ctx, from, true); err == nil {
				c.Close()
			}
		},
		"idle": func(ctx context.Context, from string) {
			if c, err := f.dial(ctx, from, false); err == nil {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				_, _ = c.Read(make([]byte, 1))
				stop()
				c.Close()
			}
		},
		"audit reads": func(ctx context.Context, _ string) { f.call(ctx, "GET", "/v1/audit?after=0", nil) },
		"rotations": func(ctx context.Context, _ string) {
			f.call(ctx, "POST", "/v1/workloads/"+loadWorkload+"/rotate", rotate)
		},
	}
}

// flood floods from so many connections until stop is called, and returns once
// all have begun. addresses is from how many addresses.
func (f *flooded) flood(one func(context.Context, string), connections, addresses int) (stop func()) {
	ctx, cancel := context.WithCancel(f.Context())
	var wg sync.WaitGroup
	var begun atomic.Int64
	for i := range connections {
		wg.Go(func() {
			from := fmt.Sprintf("127.0.2.%d", 1+i%addresses)
			for begun.Add(1); ctx.Err() == nil; {
				one(ctx, from)
			}
		})
	}
	for begun.Load() < int64(connections) {
		time.Sleep(time.Millisecond)
	}
	return func() { cancel(); wg.Wait() }
}

// served has guests come from addresses of their own until each has its key,
// and says how long it took them.
func (f *flooded) served(guests, times int) (took []time.Duration, most int64) {
	f.Helper()
	for range times {
		for i := range guests {
			begin := time.Now()
			c := f.guests.client(f.url, fmt.Sprintf("127.0.3.%d", 1+i))
			c.Wait = 2 * time.Minute // as a guest does that is told to come back
			if _, err := c.Release(f.Context(), f.guests.request()); err != nil {
				f.Errorf("guest %d: %v", i, err)
			}
			took, most = append(took, time.Since(begin)), max(most, f.rss())
		}
	}
	return took, most
}

// TestFloods: under each flood the server lives, serves guests, and takes no
// more memory than it may.
func TestFloods(t *testing.T) {
	f := newFlooded(t)
	connections, guests := howMuchFlood()
	for name, one := range f.floods() {
		stop := f.flood(one, connections, 20)
		_, most := f.served(guests, 1)
		stop()
		most = max(most, f.rss())
		t.Logf("%s: %d MiB, %d when idle", name, most>>20, f.idle>>20)
		if f.rss() == 0 || most > f.idle+floodMaxRSS {
			t.Fatalf("%s: server takes %d MiB, had %d when idle, at most %d more are allowed", name, most>>20, f.idle>>20, floodMaxRSS>>20)
		}
	}
}

// apart gives the server one processor and the flooder, with the guests, another.
func (f *flooded) apart() {
	f.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", f.pid))
	own, err2 := filepath.Glob("/proc/self/task/*")
	if err = errors.Join(err, err2); err != nil {
		f.Fatal(err)
	}
	for processor, all := range [][]string{tasks, own} {
		var set unix.CPUSet
		set.Set(processor)
		for _, task := range all {
			id, err := strconv.Atoi(filepath.Base(task))
			if err == nil {
				err = unix.SchedSetaffinity(id, &set)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				f.Fatal(err)
			}
		}
	}
}

// BenchmarkFloods is TestFloods from 900 connections, with latencies beside those
// of an equal harmless load, server and flooder on a processor each.
func BenchmarkFloods(b *testing.B) {
	f := newFlooded(b)
	f.apart()
	floods := f.floods()
	names := slices.Sorted(maps.Keys(floods))
	floods["harmless"] = func(ctx context.Context, _ string) { f.call(ctx, "GET", "/healthz", nil) }
	harmless := 0.0
	for _, name := range slices.Insert(names, 0, "harmless") {
		b.Run(name, func(b *testing.B) {
			f.TB = b
			for range b.N {
				stop := f.flood(floods[name], 900, 20)
				took, most := f.served(10, 3)
				stop()
				slices.Sort(took)
				p99 := float64(quantile(took, 0.99).Milliseconds())
				if name == "harmless" {
					harmless = p99
				}
				b.ReportMetric(float64(quantile(took, 0.5).Milliseconds()), "p50-ms")
				b.ReportMetric(p99, "p99-ms")
				b.ReportMetric(p99/harmless, "of-harmless-p99")
				b.ReportMetric(float64(most-f.idle)/(1<<20), "MiB-above-idle")
				if f.rss() == 0 || most > f.idle+floodMaxRSS {
					b.Errorf("%s: server takes %d MiB, had %d when idle", name, most>>20, f.idle>>20)
				}
			}
		})
	}
}
