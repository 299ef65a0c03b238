package command

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// reloadRig is a server with a policy, a client list, a TLS identity and
// endorsements, and what each of them is seen by.
type reloadRig struct {
	t                     *testing.T
	dir, config, supplied string
	log                   buffer
	url                   string
	hup                   func()
	api                   *kbs.AdminClient
	roots                 *x509.CertPool
	mine                  tls.Certificate
	registered            int
}

const vcekAlone = "\n[policy.snp]\nsigners = [\"VCEK\"]\n"

// configuration lets CN=eye in and asks for policy.
func (r *reloadRig) configuration(policy string) string { return r.configurationFor("eye", policy) }

func (r *reloadRig) configurationFor(name, policy string) string {
	return fmt.Sprintf("endorsements = %q\nclient_ca = %q\nclients = [ {subject=\"CN=%s\", role=\"auditor\"} ]\n%s", r.supplied, inDir(r.dir, caName), name, policy)
}

func newReloadRig(t *testing.T) *reloadRig {
	r := &reloadRig{t: t, config: filepath.Join(t.TempDir(), "c.toml"), supplied: t.TempDir()}
	var token string
	r.dir, token = initDir(t)
	r.mine = clientCertificate(t, r.dir, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	r.write(r.configuration(vcekAlone))
	cmd, url := processTo(t, &r.log, nil, "--data", r.dir, "--config", r.config)
	r.url, r.api = url, admin(t, r.dir, url, token)
	r.roots = r.api.RootCAs
	r.hup = func() { cmd.Process.Signal(syscall.SIGHUP) }
	return r
}

func (r *reloadRig) write(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.config, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// reload sends SIGHUP and waits for one more line that says so.
func (r *reloadRig) reload(line string) {
	r.t.Helper()
	had := strings.Count(r.log.String(), line)
	r.hup()
	for deadline := time.Now().Add(2 * time.Minute); strings.Count(r.log.String(), line) == had; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("SIGHUP, and nobody says %q:\n%s", line, r.log.String())
		}
	}
}

const (
	refusedLine = "keeping all that is in use"
	takenLine   = "read again: "
)

// seen is what is in force: which signers may register, the status of the
// client certificate, and the server's own certificate.
func (r *reloadRig) seen() string {
	r.t.Helper()
	out := ""
	for _, signer := range []string{"VCEK", "VLEK"} {
		r.registered++
		req := registration(fmt.Sprintf("w%d", r.registered), r.registered)
		req.Registration.ReferenceValues.SNP = &kbs.SNPRules{Signers: []string{signer}}
		if _, err := r.api.Register(r.t.Context(), req); err == nil {
			out += signer + " "
		}
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots, Certificates: []tls.Certificate{r.mine}}}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport}).Get(r.url + "/v1/workloads")
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	return out + fmt.Sprintf("%d %s", resp.StatusCode, resp.TLS.PeerCertificates[0].SerialNumber)
}

// TestReloadIsAllOrNothing: whatever is wrong with one of configuration,
// policy, clients, TLS identity or endorsements, all of them stay. Every
// case would change something else if it were done by half.
func TestReloadIsAllOrNothing(t *testing.T) {
	r := newReloadRig(t)
	before := r.seen()
	if !strings.HasPrefix(before, "VCEK 200 ") {
		t.Fatalf("before: %s", before)
	}
	other := r.configurationFor("other", "\n[policy.snp]\nsigners = [\"VLEK\"]\n")
	aside := func(path string) (restore func()) {
		if err := os.Rename(path, path+".aside"); err != nil {
			t.Fatal(err)
		}
		return func() { os.RemoveAll(path); os.Rename(path+".aside", path) }
	}
	for name, break1 := range map[string]func() (restore func()){
		"emptied":              func() func() { r.write(""); return nil },
		"nothing but comments": func() func() { r.write("# nothing\n\n  # here\n"); return nil },
		"cut before [policy]":  func() func() { r.write(r.configurationFor("other", "")); return nil },
		"cut in a table":       func() func() { r.write(other[:strings.Index(other, "[policy")+5]); return nil },
		"an empty [policy]":    func() func() { r.write(r.configurationFor("other", "[policy]\n")); return nil },
		"none = false":         func() func() { r.write(r.configurationFor("other", "[policy]\nnone = false\n")); return nil },
		"none and a policy":    func() func() { r.write(r.configurationFor("other", "[policy]\nnone = true\n"+vcekAlone)); return nil },
		"missing":              func() func() { return aside(r.config) },
		"unreadable": func() func() {
			restore := aside(r.config)
			os.Mkdir(r.config, 0o700)
			return restore
		},
		"a CA that is not there": func() func() { r.write(strings.Replace(other, caName, "nosuch.pem", 1)); return nil },
		"a tenant that is none": func() func() {
			r.write(strings.Replace(other, `role="auditor"`, `role="auditor", tenant="nobody"`, 1))
			return nil
		},
		"a role that is none": func() func() { r.write(strings.Replace(other, "auditor", "king", 1)); return nil },
		"no endorsements":     func() func() { r.write(other); return aside(r.supplied) },
		"a broken TLS identity": func() func() {
			r.write(other)
			restore := aside(inDir(r.dir, serverName))
			os.WriteFile(inDir(r.dir, serverName), []byte("broken"), 0o600)
			return restore
		},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			restore := break1()
			r.reload(refusedLine)
			if restore != nil {
				restore()
			}
			if got := r.seen(); got != before {
				t.Errorf("%s, before %s", got, before)
			}
		})
	}
	mustRun(t, "certs", "renew", "--data", r.dir, "--name", "127.0.0.1")
	r.write(strings.Replace(other, caName, "nosuch.pem", 1))
	r.reload(refusedLine)
	if got := r.seen(); got != before {
		t.Errorf("a new certificate and no CA: %s, before %s", got, before)
	}
	r.write(other)
	r.reload(takenLine)
	got := r.seen()
	if serial := before[strings.LastIndex(before, " "):]; !strings.HasPrefix(got, "VLEK 401 ") || strings.HasSuffix(got, serial) {
		t.Errorf("all is right now: %s, before %s", got, before)
	}
}

// TestPolicyDigestsAreTold: log and audit have the digest of what was in force
// before and is now, of configuration and policy, on every change.
func TestPolicyDigestsAreTold(t *testing.T) {
	r := newReloadRig(t)
	old := r.configuration(vcekAlone)
	cfg := func(text string) Config {
		var c Config
		if err := c.read(written(t, text)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	told := func(texts ...string) {
		t.Helper()
		audit := mustRun(t, "audit", "export", "--data", r.dir)
		last := audit[strings.LastIndex(strings.TrimRight(audit, "\n"), "\n")+1:]
		log := r.log.String()
		log = log[strings.LastIndex(strings.TrimRight(log, "\n"), "\n")+1:]
		for _, text := range texts {
			if !strings.Contains(last, text) || !strings.Contains(log, text) {
				t.Errorf("%q is not in both\n%s%s", text, last, log)
			}
		}
	}
	next := r.configuration("\n[policy.snp]\nsigners = [\"VLEK\"]\n")
	r.write(next)
	r.reload(takenLine)
	a, b := cfg(old).inForce, cfg(next).inForce
	if len(a.Policy) < 64 || len(a.Configuration) < 64 || a.Policy == b.Policy || a.Configuration == b.Configuration {
		t.Fatalf("digests %+v and %+v", a, b)
	}
	told(a.Policy, b.Policy, a.Configuration, b.Configuration)
	none := r.configuration("\n[policy]\nnone = true\n")
	r.write(none)
	r.reload(takenLine)
	told(b.Policy, b.Configuration, cfg(none).inForce.Configuration, "none")
	if got := r.seen(); !strings.HasPrefix(got, "VCEK VLEK ") {
		t.Errorf("none = true: %s", got)
	}
	n := strings.Count(mustRun(t, "audit", "export", "--data", r.dir), "configuration.change")
	r.reload(takenLine)
	if m := strings.Count(mustRun(t, "audit", "export", "--data", r.dir), "configuration.change"); m != n || n != 3 {
		t.Errorf("%d changes of configuration in the audit log, then %d though nothing changed, expected 3", n, m)
	}
}

// TestStartWithoutThePolicyThatWas: a server knows from its store that a
// policy was in force, and does not start without one unless that is said.
func TestStartWithoutThePolicyThatWas(t *testing.T) {
	dir, _ := initDir(t)
	start := func(text string, more ...string) (string, error) {
		args := append([]string{"--data", dir}, more...)
		if text != "-" {
			args = append(args, "--config", written(t, text))
		}
		if _, log, err := run(t.Context(), append(append([]string{"serve"}, args...), "--check-config")...); err != nil {
			return log, err
		}
		_, stop := serve(t, args...)
		return stop()
	}
	if _, err := start("-"); err != nil {
		t.Fatalf("a new store: %v", err)
	}
	if _, err := start(vcekAlone); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "# cut", "session_life = \"60s\"\n", "-"} {
		_, err := start(text)
		if err == nil || !strings.Contains(err.Error(), "policy") || !strings.Contains(hint.Of(err), "none = true") {
			t.Errorf("%q: %v, hint %q", text, err, hint.Of(err))
		}
	}
	ctx := t.Context()
	if err := runTo(ctx, &buffer{}, &buffer{}, "serve", "--data", dir, "--listen", "127.0.0.1:0"); err == nil {
		t.Error("started without --check-config")
	}
	log, err := start("[policy]\nnone = true\n")
	if err != nil || !strings.Contains(log, "level=WARN") {
		t.Errorf("none = true: %v\n%s", err, log)
	}
	if _, err := start(""); err != nil {
		t.Errorf("none was said before: %v", err)
	}
	if audit := mustRun(t, "audit", "export", "--data", dir); strings.Count(audit, "configuration.change") < 2 {
		t.Errorf("not in the audit log:\n%s", audit)
	}
}
