package command

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/pprof"
	"testing"
	"time"
)

// floorMain is what no server can be faster than: for each connection a TLS
// 1.3 handshake with the server's identity and key exchange, and one ECDSA
// P-384 verification of a report's worth of bytes.
func floorMain(args []string) int {
	if err := serveFloor(args[0]); err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
	}
	return 1
}

func serveFloor(dir string) error {
	verify, err := oneVerify()
	if err != nil {
		return err
	}
	c := certificate{certFile: filepath.Join(dir, serverName), keyFile: filepath.Join(dir, serverKeyName)}
	identity, err := c.read()
	if err != nil {
		return err
	}
	c.current.Store(identity)
	config := c.config()
	config.NextProtos = nil
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			var b [1]byte
			if _, err := io.ReadFull(conn, b[:]); err == nil && verify() {
				_, _ = conn.Write(b[:])
			}
		}()
	}
}

func oneVerify() (func() bool, error) {
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, err
	}
	signed := make([]byte, 0x2a0) // of an SNP report
	sum := sha512.Sum384(signed)
	sig, err := ecdsa.SignASN1(rand.Reader, k, sum[:])
	return func() bool {
		sum := sha512.Sum384(signed)
		return ecdsa.VerifyASN1(&k.PublicKey, sum[:], sig)
	}, err
}

// profile writes a server's processor profile of its first 25 s to path.
func profile(path string) {
	if path == "" {
		return
	}
	f, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		return
	}
	time.AfterFunc(25*time.Second, func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	})
}

// floorCall is one connection to the floor.
func floorCall(address string, roots *x509.CertPool) error {
	conn, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	c := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13})
	b := []byte{1}
	if _, err := c.Write(b); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if id := c.ConnectionState().CurveID; id != tls.X25519MLKEM768 {
		return fmt.Errorf("key exchange %v, expected the server's own", id)
	}
	return nil
}

func floorClient(t testing.TB, dir, address string) func(int) error {
	roots := admin(t, dir, "", "").RootCAs
	return func(int) error { return floorCall(address, roots) }
}
