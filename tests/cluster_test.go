package tests

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/servertest"
)

// cluster is a PostgreSQL of the test's own: unix socket, password, no TCP.
type cluster struct {
	t        testing.TB
	dir, bin string
	process  *exec.Cmd
	log      servertest.Buffer
}

const (
	databaseUser     = "attest"
	databasePassword = "correct-horse-battery-staple"
	nobody           = 65534 // PostgreSQL refuses to run as root
)

func newCluster(t testing.TB) *cluster {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		need(t, fmt.Errorf("initdb: apt-get install postgresql"))
	}
	dir, err := os.MkdirTemp("", "ccrun-pg") // not t.TempDir: it must be nobody's, and its path short
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir, bin: filepath.Dir(found[len(found)-1])}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write(t, filepath.Join(dir, "password"), []byte(databasePassword+"\n"))
	write(t, filepath.Join(dir, "pgpass"), []byte("*:*:*:*:"+databasePassword+"\n"))
	if err := os.Chmod(filepath.Join(dir, "pgpass"), 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		for path, owner := range map[string]int{dir: nobody, filepath.Join(dir, "password"): nobody} {
			if err := os.Chown(path, owner, owner); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := c.command("initdb", "-D", filepath.Join(dir, "data"), "-U", databaseUser, "-A", "scram-sha-256",
		"--pwfile", filepath.Join(dir, "password"), "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	t.Cleanup(c.stop)
	return c
}

// command runs one of PostgreSQL's programs as nobody. It dies with the test.
func (c *cluster) command(name string, arg ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, name), arg...)
	cmd.Dir, cmd.Env = c.dir, []string{"PATH=/usr/bin:/bin", "LC_ALL=C"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

func (c *cluster) start(settings ...string) {
	c.t.Helper()
	args := []string{"-D", filepath.Join(c.dir, "data"), "-k", c.dir, "-c", "listen_addresses=", "-c", "max_connections=60"}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	c.process = c.command("postgres", args...)
	c.process.Stdout, c.process.Stderr = &c.log, &c.log
	if err := c.process.Start(); err != nil {
		c.t.Fatal(err)
	}
	if !eventually(func() bool { return c.command("pg_isready", "-h", c.dir).Run() == nil }) {
		c.t.Fatalf("PostgreSQL did not start:\n%s", c.log.String())
	}
}

func (c *cluster) stop() { c.end(syscall.SIGQUIT) } // at once, without a checkpoint

func (c *cluster) end(sig os.Signal) {
	if c.process != nil {
		_ = c.process.Process.Signal(sig)
		_ = c.process.Wait()
		c.process = nil
	}
}

// sql runs a script as the database's administrator.
func (c *cluster) sql(database, script string) string {
	c.t.Helper()
	cmd := c.command("psql", "-h", c.dir, "-U", databaseUser, "-d", database, "-v", "ON_ERROR_STOP=1", "-qAtX", "-f", "-")
	cmd.Env = append(cmd.Env, "PGPASSWORD="+databasePassword)
	cmd.Stdin = strings.NewReader(script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		c.t.Fatalf("psql: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func (c *cluster) url(database string) string {
	return fmt.Sprintf("postgres:///%s?host=%s&user=%s&passfile=%s", database, c.dir, databaseUser, filepath.Join(c.dir, "pgpass"))
}

// member is one of the servers on a database.
type member struct {
	t                testing.TB
	dir, config, url string
	address          string
	log              servertest.Buffer
	process          *exec.Cmd
	bin, platform    string
}

func (m *member) start() {
	m.t.Helper()
	m.launch()
	if !eventually(func() bool { status, _ := get(m.url + "/readyz"); return status == http.StatusOK }) {
		m.kill()
		m.t.Fatalf("server did not start:\n%s", m.log.String())
	}
}

func (m *member) launch() {
	m.t.Helper()
	m.process = m.command("serve", "--config", m.config, "--listen", m.address)
	m.process.Stdout, m.process.Stderr = &m.log, &m.log
	if err := m.process.Start(); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) command(arg ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(m.bin, "ccrun-sim"), append([]string{"attest-server"}, arg...)...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + m.dir, "CCRUN_SIM_ROOT=" + m.platform}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (m *member) must(arg ...string) string {
	m.t.Helper()
	cmd := m.command(arg...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("attest-server %s: %v: %s", strings.Join(arg, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

func (m *member) kill() {
	if m.process != nil {
		_ = m.process.Process.Kill()
		_ = m.process.Wait()
		m.process = nil
	}
}

var insecure = &http.Client{Timeout: patience, Transport: &http.Transport{
	DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // health checks alone
}}

func get(url string) (status int, retryAfter string) {
	resp, err := insecure.Get(url)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Retry-After")
}

// balancer hands TCP connections to servers in turn, and to the other one if
// the first does not answer.
type balancer struct {
	net.Listener
	servers []*member
	turn    atomic.Int64
	mu      sync.Mutex
	last    *member // who got the connection made last
}

func newBalancer(t testing.TB, servers ...*member) *balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &balancer{Listener: l, servers: servers}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go b.relay(c)
		}
	}()
	return b
}

func (b *balancer) url() string { return "https://" + b.Addr().String() }

func (b *balancer) relay(c net.Conn) {
	defer c.Close()
	n := int(b.turn.Add(1))
	for i := range b.servers {
		m := b.servers[(n+i)%len(b.servers)]
		s, err := (&net.Dialer{Timeout: time.Second}).DialContext(context.Background(), "tcp", m.address)
		if err != nil {
			continue
		}
		b.mu.Lock()
		b.last = m
		b.mu.Unlock()
		go func() {
			_, _ = io.Copy(s, c)
			s.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(c, s)
		s.Close()
		return
	}
}

func (b *balancer) latest() *member {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.last
}
