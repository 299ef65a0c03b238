package command

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func tlsRoots(roots *x509.CertPool) *tls.Config {
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
}

// process starts attest-server as a process of its own.
func process(t testing.TB, env []string, args ...string) (cmd *exec.Cmd, url string) {
	t.Helper()
	return processTo(t, new(buffer), env, args...)
}

// processTo is process with its log in log.
func processTo(t testing.TB, log *buffer, env []string, args ...string) (cmd *exec.Cmd, url string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(append(os.Environ(), asMain+"=1"), env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("serve: %v\n%s", err, log.String())
	}
	return cmd, strings.TrimSpace(line)
}

// killStarting kills a server before it has said that it listens, or soon after.
func killStarting(t testing.TB, env []string, after time.Duration, args ...string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...)
	cmd.Env = append(append(os.Environ(), asMain+"=1"), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// TestSignals plays systemd: READY when it listens, a reload that takes a new
// certificate, one that keeps the old, STOPPING and status 0 on SIGTERM.
func TestSignals(t *testing.T) {
	dir, token := initDir(t)
	sock := filepath.Join(t.TempDir(), "notify")
	pc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: sock, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	expect := func(state string) {
		t.Helper()
		pc.SetReadDeadline(time.Now().Add(2 * time.Minute))
		b := make([]byte, 4096)
		for {
			n, err := pc.Read(b)
			if err != nil {
				t.Fatalf("waiting for %s: %v", state, err)
			}
			if strings.HasPrefix(string(b[:n]), state) {
				return
			}
		}
	}
	cmd, url := process(t, []string{"NOTIFY_SOCKET=" + sock, "WATCHDOG_USEC=200000"}, "--data", dir)
	expect("READY=1")
	expect("WATCHDOG=1")
	leaf := func() []byte {
		t.Helper()
		conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "https://"), tlsRoots(admin(t, dir, url, token).RootCAs))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if id := conn.ConnectionState().CurveID; id != tls.X25519MLKEM768 {
			t.Errorf("key exchange %v, expected a hybrid post-quantum one", id)
		}
		return conn.ConnectionState().PeerCertificates[0].Raw
	}
	first := leaf()
	mustRun(t, "certs", "renew", "--data", dir, "--name", "127.0.0.1")
	cmd.Process.Signal(syscall.SIGHUP)
	expect("RELOADING=1")
	expect("READY=1")
	second := leaf()
	if bytes.Equal(first, second) {
		t.Error("SIGHUP did not take the new certificate")
	}
	if err := os.WriteFile(filepath.Join(dir, serverName), []byte("broken"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(syscall.SIGHUP)
	expect("RELOADING=1")
	expect("READY=1")
	if !bytes.Equal(leaf(), second) {
		t.Error("a broken certificate replaced the one in use")
	}
	cmd.Process.Signal(syscall.SIGTERM)
	expect("STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// TestSocketActivation hands the server a socket as systemd does.
func TestSocketActivation(t *testing.T) {
	dir, token := initDir(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// LISTEN_PID must be the server's own, which only the shell before exec knows.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" serve --listen 192.0.2.1:1 --data "$1"`, self, dir)
	cmd.Env = append(os.Environ(), asMain+"=1", "LISTEN_FDS=1")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if url := strings.TrimSpace(line); url != "https://"+l.Addr().String() {
		t.Errorf("listens on %s, expected %s", url, l.Addr())
	} else if _, err := admin(t, dir, url, token).List(t.Context()); err != nil {
		t.Error(err)
	}
}
