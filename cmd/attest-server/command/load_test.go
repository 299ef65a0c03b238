package command

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/sample/sampletest"
)

// guests is a simulated machine that launches guests of one registered
// workload: what loads the server is real but for who made the chip.
type guests struct {
	chip *sample.Attester
	vcek []byte // certificate table, as ccrun-init sends it on
	pin  string
	req  kbs.RegisterRequest
}

const loadWorkload = "load"

// newGuests makes the machine and the registration that its guests match.
// env is what the server needs to trust it.
func newGuests(t testing.TB, dir string) (g *guests, env []string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "platform")
	if err := sampletest.Create(root, time.Now()); err != nil {
		t.Fatal(err)
	}
	chip, err := sample.OpenAttester(root)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, caName))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	req := registration(loadWorkload, 1)
	req.Registration.ReferenceValues.TEE = kbs.Sample
	return &guests{chip: chip, vcek: vcekOf(t, root), pin: kbs.PinOf(ca), req: req}, []string{simulated + "=" + root}
}

// vcekOf is a certificate table with a simulated platform's VCEK alone.
func vcekOf(t testing.TB, root string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, sample.ChipDir, "vcek.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	return abi.CertsFromProto(&spb.CertificateChain{VcekCert: block.Bytes}).Marshal()
}

// register registers the workload at a running server.
func (g *guests) register(t testing.TB, dir, url, token string) {
	t.Helper()
	if _, err := admin(t, dir, url, token).Register(t.Context(), g.req); err != nil {
		t.Fatal(err)
	}
}

// client is a guest that comes from an address of loopback's.
func (g *guests) client(url, from string) *kbs.Client {
	d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	return &kbs.Client{URLs: []string{url}, PinnedKeys: []string{g.pin}, Timeout: time.Minute,
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			return d.DialContext(ctx, network, addr)
		}}
}

func (g *guests) request() kbs.ReleaseRequest {
	r := g.req.Registration
	return kbs.ReleaseRequest{
		WorkloadID: r.WorkloadID, TEE: kbs.Sample, IdentityDigest: r.IdentityDigest, FooterDigest: r.FooterDigest,
		Attest: func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
			l, err := sample.NewLaunch(r.ReferenceValues.Measurements[0].LaunchDigest)
			if err != nil {
				return kbs.Evidence{}, err
			}
			ev, err := g.chip.Sign(rd, l)
			ev.Certificates = g.vcek
			return ev, err
		},
	}
}

// handshake is auth, attest and key over a new connection, as guests come.
func (g *guests) handshake(url, from string) error {
	k, err := g.client(url, from).Release(context.Background(), g.request())
	if err == nil && string(k.Reveal()) != string(g.req.DiskKey) {
		return fmt.Errorf("released %q", k.Reveal())
	}
	return err
}

// start is process on one core.
func start(t testing.TB, env []string, args ...string) (cmd *exec.Cmd, url string) {
	t.Helper()
	return process(t, append([]string{"GOMAXPROCS=1"}, env...), append(args, "--log-level", "warn")...)
}

// startFloor starts the floor with the server's own TLS identity.
func startFloor(t testing.TB, dir string) (cmd *exec.Cmd, address string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self, dir)
	cmd.Env = append(os.Environ(), asFloor+"=1", "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(line)
}

// cpu is the processor time a process has used: unlike a clock on the wall it
// hardly depends on what else the machine does.
func cpu(t testing.TB, pid int) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil { // CPUCLOCK_SCHED of pid
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// crowd has n clients call do again and again for a while, and returns how
// long each call took, sorted.
func crowd(t testing.TB, n int, d time.Duration, do func(client int) error) []time.Duration {
	t.Helper()
	end := time.Now().Add(d)
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	for c := range n {
		wg.Go(func() {
			var mine []time.Duration
			for begin := time.Now(); begin.Before(end); begin = time.Now() {
				if err := do(c); err != nil {
					t.Errorf("client %d: %v", c, err)
					break
				}
				mine = append(mine, time.Since(begin))
			}
			mu.Lock()
			all = append(all, mine...)
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(all) == 0 {
		t.Fatal("no call succeeded")
	}
	slices.Sort(all)
	return all
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}
