package command

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// powerOn is hosts that are switched on at the same instant, and when each tried
// to reach its server and got its key.
type powerOn struct {
	mu     sync.Mutex
	start  time.Time
	dials  []time.Duration
	served []time.Duration
	errs   []error
}

// howManyHosts are switched on: 500 where there is time.
func howManyHosts() int {
	if os.Getenv("CCRUN_LONG") == "" {
		return 24
	}
	return 500
}

// TestPowerOn: a site's hosts come up together while their server's machine still
// boots. One process then serves all of them, with the limits that it has by
// default. Guests ask as the agent does, with its client, waits and time limits; either each comes from
// an address of its own, or all by one router.
func TestPowerOn(t *testing.T) {
	hosts := howManyHosts()
	for name, from := range map[string]func(i int) string{
		"own addresses": func(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/250, 1+i%250) },
		"one router":    func(int) string { return "127.0.0.77" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			away, hosts := 2*time.Second, hosts
			if name == "one router" { // of a site
				hosts = max(24, hosts/4)
			}
			s := newPowerSite(t)
			p := &powerOn{start: time.Now()}
			var all sync.WaitGroup
			for i := range hosts {
				all.Go(func() { p.guest(t.Context(), s.guests, s.url, from(i)) })
			}
			time.Sleep(away)
			s.serve(t)
			all.Wait()
			p.judge(t, hosts)
		})
	}
}

// powerSite is a server with a registered workload that does not run now, and
// comes back at the same port.
type powerSite struct {
	guests *guests
	url    string
	again  func(t *testing.T)
}

func newPowerSite(t *testing.T) *powerSite {
	dir, token := initDir(t)
	g, env := newGuests(t, dir)
	config := filepath.Join(t.TempDir(), "attest-server.toml")
	if err := os.WriteFile(config, []byte("address_exempt = [\"192.0.2.0/24\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd, url := start(t, env, "--data", dir, "--config", config)
	g.register(t, dir, url, token)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return &powerSite{g, url, func(t *testing.T) {
		start(t, env, "--data", dir, "--config", config, "--listen", strings.TrimPrefix(url, "https://"))
	}}
}

func (s *powerSite) serve(t *testing.T) { s.again(t) }

func (p *powerOn) guest(ctx context.Context, g *guests, url, from string) {
	c := g.client(url, from)
	c.Timeout, c.Wait = 0, kbs.Forever // the agent's
	dial := c.Dial
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		p.mu.Lock()
		p.dials = append(p.dials, time.Since(p.start))
		p.mu.Unlock()
		return dial(ctx, network, addr)
	}
	_, err := c.Release(ctx, g.request())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.served, p.errs = append(p.served, time.Since(p.start)), append(p.errs, err)
}

// busiest is how many of times there are in one second, from the given time on.
func busiest(times []time.Duration, from time.Duration) (n int) {
	slices.Sort(times)
	for i, at := range times {
		if at >= from {
			end, _ := slices.BinarySearch(times, at+time.Second)
			n = max(n, end-i)
		}
	}
	return n
}

func (p *powerOn) judge(t *testing.T, hosts int) {
	t.Helper()
	for _, err := range p.errs {
		if err != nil {
			t.Fatalf("a guest was not served: %v", err)
		}
	}
	// How they are spread is TestNoHerd's, on a clock of its own: here a busy
	// machine may run them in bursts.
	t.Logf("%d hosts: the first has its key after %s, the last after %s; %d tries, at most %d in a second once they wait",
		hosts, slices.Min(p.served).Round(10*time.Millisecond), slices.Max(p.served).Round(10*time.Millisecond), len(p.dials), busiest(p.dials, 2*time.Second))
	if len(p.dials) > 15*hosts {
		t.Errorf("%d tries of %d hosts", len(p.dials), hosts)
	}
}
