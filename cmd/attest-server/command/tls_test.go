package command

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// clientHello is what a client that begins a TLS handshake says first.
func clientHello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		c := tls.Client(ours, &tls.Config{ServerName: "localhost", MinVersion: tls.VersionTLS13})
		_ = c.HandshakeContext(context.Background()) // nobody answers
		ours.Close()
	}()
	b := make([]byte, 16<<10)
	n, err := theirs.Read(b)
	if err != nil || n < 500 {
		t.Fatalf("client hello of %d bytes, %v", n, err)
	}
	return b[:n]
}

// TestHalfHandshakes: who connects and stops within the TLS handshake is cut
// off within seconds, and owners are served meanwhile.
func TestHalfHandshakes(t *testing.T) {
	t.Parallel() // mostly it waits
	dir, token := initDir(t)
	url, _ := serve(t, "--data", dir)
	hello := clientHello(t)
	begin := time.Now()
	ended := make(chan time.Duration, 200)
	for i := range cap(ended) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		said, rest := hello, []byte(nil)
		switch i % 4 { // else: all of it, and then no answer to the server's part
		case 0:
			said = nil
		case 1:
			said = hello[:len(hello)/2]
		case 2:
			said, rest = hello[:100], hello[100:300] // a byte at a time
		}
		go func() {
			if _, err := conn.Write(said); err != nil {
				t.Error(err)
			}
			go func() {
				for _, b := range rest {
					time.Sleep(100 * time.Millisecond)
					if _, err := conn.Write([]byte{b}); err != nil {
						return
					}
				}
			}()
			_, _ = io.Copy(io.Discard, conn)
			ended <- time.Since(begin)
		}()
	}
	for range 3 {
		c := admin(t, dir, url, token)
		if _, err := c.List(t.Context()); err != nil {
			t.Errorf("an owner meanwhile: %v", err)
		}
	}
	if held := time.Since(begin); len(ended) != 0 && held < 5*time.Second { // else the machine is slow
		t.Errorf("%d were cut off within %v: the test shows nothing", len(ended), held)
	}
	for range cap(ended) {
		select {
		case <-ended:
		case <-time.After(2 * time.Minute):
			t.Fatalf("still connected after %v", time.Since(begin))
		}
	}
}

// TestCertificateClockJump: a jump of the clock takes neither the server's
// identity nor lets a client certificate in that is not valid then.
func TestCertificateClockJump(t *testing.T) {
	dir, _ := initDir(t)
	now := time.Now()
	c := certificate{certFile: inDir(dir, serverName), keyFile: inDir(dir, serverKeyName)}
	roots, err := clientRoots(inDir(dir, caName))
	if err != nil {
		t.Fatal(err)
	}
	c.clients.Store(roots)
	first, err := c.read()
	if err != nil {
		t.Fatal(err)
	}
	c.current.Store(first)
	mine := clientCertificate(t, dir, now.Add(-time.Hour), now.Add(time.Hour))
	for name, x := range map[string]struct {
		jump     time.Duration
		accepted bool // the client's certificate
	}{
		"none":                   {0, true},
		"a little ahead":         {50 * time.Minute, true},
		"a day ahead":            {24 * time.Hour, false},
		"ten years ahead":        {10 * 365 * 24 * time.Hour, false},
		"a day behind":           {-24 * time.Hour, false},
		"back to the epoch":      {-now.Sub(time.Unix(0, 0)), false},
		"and back where it was":  {0, true},
		"a little behind itself": {-50 * time.Minute, true},
	} {
		at := now.Add(x.jump)
		identity, err := c.readAnew(at)
		if err != nil {
			t.Fatalf("%s: reading the server's certificate: %v", name, err)
		}
		c.current.Store(identity)
		// A guest goes by its pin, whatever the time: it has no certificate.
		if err := meet(t, &c, at); err != nil {
			t.Errorf("%s: a guest: %v", name, err)
		}
		err = meet(t, &c, at, mine)
		if (err == nil) != x.accepted {
			t.Errorf("%s: with a client certificate: %v", name, err)
		}
		var invalid x509.CertificateInvalidError
		if err != nil && (!errors.As(err, &invalid) || invalid.Reason != x509.Expired) {
			t.Errorf("%s: refused with %v", name, err)
		}
	}
}

// TestExpiredCertificate: a server whose certificate has ended starts, since
// guests look at no times, but takes none such in the place of a good one.
func TestExpiredCertificate(t *testing.T) {
	dir, _ := initDir(t)
	ca, caKey, err := loadCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(inDir(dir, serverName), inDir(dir, serverKeyName))
	if err != nil {
		t.Fatal(err)
	}
	past := time.Now().Add(-2 * leafLife)
	spent, err := issue(ca, caKey, pair.Leaf.PublicKey, []string{"localhost", "127.0.0.1"}, past, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := certificate{certFile: inDir(dir, serverName), keyFile: inDir(dir, serverKeyName)}
	c.current.Store(&pair)
	if err := os.WriteFile(c.certFile, spent, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := c.readAnew(time.Now()); err == nil || !strings.Contains(err.Error(), "expired on") {
		t.Errorf("an expired certificate for a good one: %v", err)
	}
	url, stop := serve(t, "--data", dir)
	pins, err := kbs.ParsePins([]string{kbs.PinOf(ca)})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := pins.Verify(conn.ConnectionState().PeerCertificates, "127.0.0.1"); err != nil {
		t.Errorf("a guest: %v", err)
	}
	conn.Close() // or the server waits for it, until its time is out
	if log, err := stop(); err != nil || !strings.Contains(log, "has EXPIRED") {
		t.Errorf("the log does not shout: %v\n%s", err, log)
	}
}

func clientCertificate(t *testing.T, dir string, from, to time.Time) tls.Certificate {
	t.Helper()
	ca, caKey, err := loadCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "eye"}, NotBefore: from, NotAfter: to,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// meet has a client shake hands with a server whose clock says at, and is the
// server's error.
func meet(t *testing.T, c *certificate, at time.Time, mine ...tls.Certificate) error {
	t.Helper()
	server := c.config()
	server.Time = func() time.Time { return at }
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	go func() {
		client := tls.Client(ours, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, Certificates: mine})
		_, _ = io.Copy(io.Discard, client)
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	return tls.Server(theirs, server).HandshakeContext(ctx)
}
