package main

import (
	"bytes"
	"crypto/tls"
	"debug/elf"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// childArgs is the environment variable with the command of a child, one argument
// a line.
const childArgs = "CCRUN_TEST_COMMAND"

// TestCommandInChild is no test: it is a command in a process that can be killed.
func TestCommandInChild(t *testing.T) {
	line := os.Getenv(childArgs)
	if line == "" {
		t.Skip("TestCommandInChild is for other tests")
	}
	if out, err := ccrun(strings.Split(line, "\n")...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// toll stands between a command and its server. After the server has done its nth
// request the command is killed instead of getting the answer; 0: it never is.
type toll struct {
	mu       sync.Mutex
	server   *kbs.AdminClient
	n, after int
	last     string // request
	kill     func() error
	killed   bool
}

func (p *toll) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	p.last = r.Method + " " + r.URL.Path
	answer, body, err := p.forward(r)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if p.n == p.after {
		p.killed = p.kill() == nil
		return
	}
	for k, v := range answer.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.StatusCode)
	_, _ = w.Write(body)
}

func (p *toll) forward(r *http.Request) (*http.Response, []byte, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, p.server.URL+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header = r.Header
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: p.server.RootCAs}, DisableCompression: true}}
	defer client.CloseIdleConnections()
	answer, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	return answer, got, err
}

// replaceRig builds the next version of a workload in processes that are killed.
type replaceRig struct {
	t    *testing.T
	c    *kbs.AdminClient
	toll *toll
	args []string
	env  []string
}

func newReplaceRig(t *testing.T) *replaceRig {
	t.Helper()
	r := &replaceRig{t: t, c: startServer(t)}
	r.toll = &toll{server: r.c}
	proxy := httptest.NewTLSServer(r.toll)
	t.Cleanup(proxy.Close)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ca := write("proxy.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}))
	r.env = append(os.Environ(), "CCRUN_SERVER="+proxy.URL, "CCRUN_CA="+ca)
	imagetest.App(t).WriteLayout(t, filepath.Join(dir, "src"))
	lib, _ := testFirmware(t)
	agent := write("agent", elfHeader(t))
	r.args = []string{"build", "-q", "--tee", "snp", "--workload-id", "shop", "--firmware", lib, "--agent", agent, "--memory", "1000",
		"--attest-url", "https://192.0.2.1:8443", "--pin", strings.Repeat("ab", 32), "--signature-policy", write("policy.json", []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))}
	return r
}

// elfHeader is a program without code.
func elfHeader(t *testing.T) []byte {
	t.Helper()
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: 64, Phentsize: 56}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	var b bytes.Buffer
	if err := binary.Write(&b, binary.LittleEndian, h); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// build says whether the image got its name. It is killed after that request.
func (r *replaceRig) build(after int, more ...string) (named bool, out string) {
	r.t.Helper()
	r.toll.n, r.toll.after, r.toll.killed = 0, after, false
	dst := filepath.Join(r.t.TempDir(), "out")
	args := append(append(r.args[:len(r.args):len(r.args)], more...), "oci:"+filepath.Join(filepath.Dir(r.args[len(r.args)-1]), "src"), "oci:"+dst+":app")
	cmd := exec.Command(os.Args[0], "-test.run", "^TestCommandInChild$")
	cmd.Env = append(r.env, childArgs+"="+strings.Join(args, "\n"))
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	r.toll.kill = func() error { return cmd.Process.Kill() }
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && r.toll.killed) {
		r.t.Fatalf("%v: %s", err, b.String())
	}
	_, err = os.Stat(filepath.Join(dst, "index.json"))
	return err == nil, b.String()
}

// TestKilledReplace kills a build --replace after each thing that it has the server
// do: a version is there whole or not at all, and the one before ends early only
// when the new image has its name.
func TestKilledReplace(t *testing.T) {
	r := newReplaceRig(t)
	if named, out := r.build(0); !named {
		t.Fatal(out)
	}
	for after := 1; ; after++ {
		before, err := r.c.Get(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		named, out := r.build(after, "--replace=now")
		now, err := r.c.Get(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		if len(now.Versions) == 0 { // it has one
			now.Versions = []kbs.Version{{Name: "shop", Version: now.Version, RevokedAt: now.RevokedAt}}
		}
		was := now.Versions[0]
		if made := now.Version - before.Version; made > 1 || made < 0 {
			t.Fatalf("after %s: version %d, before %d", r.toll.last, now.Version, before.Version)
		} else if made == 1 {
			was = now.Versions[1]
		}
		if was.RevokedAt != nil && !named {
			t.Errorf("after %s: version %s is over, and no new image has its name", r.toll.last, was.Name)
		}
		for _, v := range now.Versions {
			if b, err := r.c.Bootable(t.Context(), v.Name); err != nil || b.Boot == nil || len(b.Registration.ReferenceValues.Measurements) == 0 {
				t.Errorf("after %s: version %s is there in part: %+v, %v", r.toll.last, v.Name, b, err)
			}
		}
		t.Logf("killed %v after request %d, %s: version %d, the one before revoked %v, image named %v", r.toll.killed, after, r.toll.last, now.Version, was.RevokedAt != nil, named)
		if !r.toll.killed {
			if !named || was.RevokedAt == nil || now.Version != before.Version+1 {
				t.Errorf("not killed: %+v %s", now.Versions, out)
			}
			return
		}
		if after > 12 {
			t.Fatal("it goes on asking")
		}
	}
}

// TestRegisterReplace: a record becomes the next version, by hand and again.
func TestRegisterReplace(t *testing.T) {
	r := newReplaceRig(t)
	record := filepath.Join(t.TempDir(), "record")
	for i, c := range []struct{ flag, want string }{{"", "workload shop registered"}, {"--replace=now", "replaces:    shop@1, which is revoked"}} {
		if err := os.RemoveAll(record); err != nil {
			t.Fatal(err)
		}
		if _, out := r.build(0, "--no-register", "--record", record); !strings.Contains(out, "PASS") {
			t.Fatal(out)
		}
		args := slices.DeleteFunc([]string{"register", c.flag, record}, func(s string) bool { return s == "" })
		if out, err := ccrun(args...); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("%v: %s, %v", args, out, err)
		}
		if out, err := ccrun(args...); err != nil || !strings.Contains(out, "was registered already") {
			t.Errorf("%v, again: %s, %v", args, out, err)
		}
		if now, err := r.c.Get(t.Context(), "shop"); err != nil || now.Version != int64(i+1) || now.RevokedAt != nil {
			t.Errorf("%v: %+v, %v", args, now, err)
		}
	}
	if out, err := ccrun("register", "--replace=", record); face.Status(err) != face.Misused {
		t.Errorf("--replace=: %s, %v", out, err)
	}
}
