package attestserver

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
)

// slowSigner is the only processor of a slow machine.
type slowSigner struct {
	crypto.Signer
	mu   sync.Mutex
	each time.Duration
}

func (s *slowSigner) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	time.Sleep(s.each)
	return s.Signer.Sign(r, digest, o)
}

func slowIdentity(t *testing.T, each time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: &slowSigner{Signer: key, each: each}}
}

// crowdServer serves with TLS on a machine where each handshake takes a while, and
// whose peers have less time than the last of a crowd has to wait.
func crowdServer(t *testing.T, patience, each time.Duration) (r *rig, to string) {
	t.Helper()
	r = newRig(t, func(c *Config) { c.Limits = answer.RateLimits{AddressConnections: 50, Exempt: []netip.Prefix{}} })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := r.server.HTTPServer()
	if srv.ReadHeaderTimeout < 10*time.Second {
		t.Errorf("a handshake may take %s, and guests wait ten seconds", srv.ReadHeaderTimeout)
	}
	srv.ReadHeaderTimeout = patience
	c := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{slowIdentity(t, each)}}
	go srv.Serve(tls.NewListener(r.server.Listener(l), answer.InTurn(c)))
	t.Cleanup(func() { srv.Close() })
	return r, l.Addr().String()
}

func shake(ctx context.Context, from, to string) (*tls.Conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, Config: &tls.Config{InsecureSkipVerify: true}}
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// TestCrowdWaits: guests that come at once, all behind one address and more than
// may stay connected from it, wait for one another: none is cut off.
func TestCrowdWaits(t *testing.T) {
	t.Parallel()                                                // mostly it waits
	_, to := crowdServer(t, 3*time.Second, 30*time.Millisecond) // 120 take 3.6 s
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range 120 {
		all.Go(func() {
			<-start
			c, err := shake(t.Context(), "127.0.0.77", to)
			if err != nil {
				t.Errorf("guest %d: %v", i, err)
				return
			}
			defer c.Close()
			if !answered(c) {
				t.Errorf("guest %d is not answered", i)
			}
		})
	}
	close(start)
	all.Wait()
}

// TestCrowdIsPassed: whoever shakes hands all the time from one address delays a
// guest of another by no more than a turn.
func TestCrowdIsPassed(t *testing.T) {
	t.Parallel()
	_, to := crowdServer(t, time.Minute, 10*time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for range 150 {
		all.Go(func() {
			for ctx.Err() == nil {
				if c, err := shake(ctx, "127.0.0.78", to); err == nil {
					c.Close()
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond) // until they queue
	begin := time.Now()
	for range 5 {
		c, err := shake(t.Context(), "127.0.0.79", to)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if took := time.Since(begin); took > 5*time.Second { // one by one behind all: 7.5 s
		t.Errorf("five handshakes took %s beside a crowd", took)
	}
}
