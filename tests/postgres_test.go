package tests

import (
	"bytes"
	"context"
	"crypto/hpke"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/secret"
)

// TestPostgresStore runs the store's own suite, and that of the servers'
// common sessions, on PostgreSQL; and what servers and commands do there with
// stores of earlier versions, witnesses and archives.
func TestPostgresStore(t *testing.T) {
	endToEnd(t)
	c := newCluster(t)
	c.start("fsync=off", "max_connections=100") // hundreds of schemas; what is lost with the machine is not the question here
	c.sql("postgres", "CREATE DATABASE suite")
	var both sync.WaitGroup // they wait much: for processes that are killed, and for one another
	defer both.Wait()
	for _, args := range [][]string{
		{"./attest-server/store/..."},
		{"-run", "^Test(UpgradeWithKills|RestoredStoreIsNoticed|ArchiveAudit|ArchiveAsksWitnesses|ArchiveWithKills)$", "./cmd/attest-server/command"},
	} {
		cmd := exec.Command("go", append([]string{"test", "-count=1"}, args...)...)
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "CCRUN_TEST_POSTGRES="+c.url("suite"))
		both.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %v:\n%s\n%s", args, err, out, c.log.String())
			}
		})
	}
}

// pair is two servers on one database, behind a balancer.
type pair struct {
	testing.TB
	c        *cluster
	a, b     *member
	front    *balancer
	chip     *sample.Attester
	roots    *x509.CertPool
	pin      string
	token    string
	digests  atomic.Uint32
	platform string
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{TB: t, c: newCluster(t), platform: filepath.Join(t.TempDir(), "platform")}
	p.c.start()
	p.c.sql("postgres", "CREATE DATABASE attest")
	if err := sample.Create(p.platform, time.Now()); err != nil {
		t.Fatal(err)
	}
	var err error
	if p.chip, err = sample.OpenAttester(p.platform); err != nil {
		t.Fatal(err)
	}
	p.a, p.b = p.member("a", "attest"), p.member("b", "attest")
	p.token = p.a.must("init", "--config", p.a.config, "--name", "127.0.0.1")
	p.join(p.b)
	b, err := os.ReadFile(filepath.Join(p.a.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	p.pin, p.roots = kbs.PinOf(ca), x509.NewCertPool()
	p.roots.AddCert(ca)
	p.a.launch() // both at once
	p.b.launch()
	p.await(p.a, http.StatusOK)
	p.await(p.b, http.StatusOK)
	p.front = newBalancer(t, p.a, p.b)
	return p
}

func (p *pair) member(name, database string) *member {
	dir := filepath.Join(p.TempDir(), name)
	m := &member{t: p.TB, dir: dir, config: dir + ".toml", address: "127.0.0.1:" + freePort(p.TB), bin: binDir(p.TB), platform: p.platform}
	m.url = "https://" + m.address
	write(p.TB, m.config, fmt.Appendf(nil, "data = %q\ndatabase = %q\naddress_rate = -1.0\n", dir, p.c.url(database)))
	p.Cleanup(func() {
		m.kill()
		if p.Failed() {
			p.Logf("log of server %s:\n%s", name, m.log.String())
		}
	})
	return m
}

// join gives m what the servers have in common besides the database.
func (p *pair) join(m *member) {
	if out, err := exec.Command("cp", "-a", p.a.dir, m.dir).CombinedOutput(); err != nil {
		p.Fatalf("%v: %s", err, out)
	}
}

func (p *pair) await(m *member, status int) {
	p.Helper()
	got := 0
	if !eventually(func() bool { got, _ = get(m.url + "/readyz"); return got == status }) {
		p.Fatalf("/readyz of %s answers %d, expected %d", m.url, got, status)
	}
}

func (p *pair) admin(url string) *kbs.AdminClient {
	return &kbs.AdminClient{URL: url, Token: secret.New([]byte(p.token)), RootCAs: p.roots, Timeout: patience}
}

func (p *pair) registration(id string) kbs.RegisterRequest {
	n := p.digests.Add(1)
	return kbs.RegisterRequest{DiskKey: []byte("disk key of " + id), Registration: kbs.Registration{
		Version: 1, WorkloadID: id, IdentityDigest: kbs.Sum384([]byte(id)), FooterDigest: kbs.Sum384([]byte("f" + id)),
		ReferenceValues: kbs.ReferenceValues{TEE: kbs.Sample, Measurements: []kbs.Measurement{
			{LaunchDigest: kbs.LaunchDigest{1, byte(n >> 8), byte(n)}, Profile: "p", CPUs: 1, MemoryMiB: 512},
		}},
	}}
}

func (p *pair) register(url string, r kbs.RegisterRequest) {
	p.Helper()
	if _, err := p.admin(url).Register(p.Context(), r); err != nil {
		p.Fatal(err)
	}
}

// guest does each request of a handshake over a connection of its own.
type guest struct {
	*pair
	reg     kbs.RegisterRequest
	client  *http.Client
	session string
	key     hpke.PrivateKey
	rd      kbs.ReportData
	attests kbs.AttestRequest
}

func (p *pair) guest(r kbs.RegisterRequest) *guest {
	tr := insecure.Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.InsecureSkipVerify, tr.TLSClientConfig.RootCAs = false, p.roots
	return &guest{pair: p, reg: r, client: &http.Client{Timeout: patience, Transport: tr}}
}

// call returns the answer's problem code, "" for success.
func (g *guest) call(method, url string, in, out any) (code string) {
	g.Helper()
	b, err := json.Marshal(in)
	if err != nil {
		g.Fatal(err)
	}
	req, err := http.NewRequestWithContext(g.Context(), method, url, bytes.NewReader(b))
	if err != nil {
		g.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if g.session != "" {
		req.Header.Set("Authorization", "Bearer "+g.session)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(resp.Body); err != nil {
		return err.Error()
	}
	if resp.StatusCode/100 == 2 {
		if err := json.Unmarshal(b, out); err != nil {
			g.Errorf("%s: %v", b, err)
		}
		return ""
	}
	var problem kbs.Problem
	if err := kbs.UnmarshalStrict(b, &problem); err != nil || problem.Status != resp.StatusCode {
		return fmt.Sprintf("%d %s", resp.StatusCode, b)
	}
	if resp.StatusCode == 503 && resp.Header.Get("Retry-After") == "" {
		g.Error("503 without Retry-After")
	}
	return problem.Code
}

func (g *guest) auth(url string) string {
	g.Helper()
	var a kbs.AuthAnswer
	if code := g.call("POST", url+"/v1/auth", kbs.AuthRequest{Version: 1, TEE: kbs.Sample, WorkloadID: g.reg.Registration.WorkloadID}, &a); code != "" {
		return code
	}
	g.session = a.Session
	var err error
	if g.key, err = hpke.MLKEM768X25519().GenerateKey(); err != nil {
		g.Fatal(err)
	}
	g.attests.RuntimeData = kbs.RuntimeData{
		Nonce: a.Nonce, TEEKey: kbs.TEEKey{KEM: g.key.KEM().ID(), Public: g.key.PublicKey().Bytes()},
		IdentityDigest: g.reg.Registration.IdentityDigest, FooterDigest: g.reg.Registration.FooterDigest,
	}
	if g.rd, err = kbs.Binding(g.reg.Registration.WorkloadID, g.attests.RuntimeData); err != nil {
		g.Fatal(err)
	}
	g.attests.Evidence, err = g.evidence(g.reg, g.rd)
	if err != nil {
		g.Fatal(err)
	}
	return ""
}

func (p *pair) evidence(r kbs.RegisterRequest, rd kbs.ReportData) (kbs.Evidence, error) {
	l, err := sample.NewLaunch(r.Registration.ReferenceValues.Measurements[0].LaunchDigest)
	if err != nil {
		return kbs.Evidence{}, err
	}
	return p.chip.Sign(rd, l)
}

func (g *guest) attest(url string) string {
	return g.call("POST", url+"/v1/attest", g.attests, new(kbs.AttestAnswer))
}

func (g *guest) fetch(url string) string {
	id := g.reg.Registration.WorkloadID
	var s kbs.Sealed
	if code := g.call("GET", url+"/v1/workloads/"+id+"/key", nil, &s); code != "" {
		return code
	}
	r, err := hpke.NewRecipient(s.Enc, g.key, hpke.HKDFSHA256(), hpke.AES256GCM(), kbs.ReleaseInfo(g.rd, kbs.ReleaseName(id)))
	if err != nil {
		g.Fatal(err)
	}
	k, err := r.Open(nil, s.Ciphertext)
	if err != nil || string(k) != string(g.reg.DiskKey) {
		g.Errorf("released %q, %v", k, err)
	}
	return ""
}

func (g *guest) want(what, got, want string) {
	g.Helper()
	if got != want {
		g.Errorf("%s: %q, expected %q", what, got, want)
	}
}

// TestTwoServers has two servers share a PostgreSQL database.
func TestTwoServers(t *testing.T) {
	endToEnd(t)
	p := newPair(t)
	for _, s := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"requests in turn", inTurn},
		{"one nonce at both at once", oneNonce},
		{"one release at both at once", oneRelease},
		{"kill -9 in mid-handshake", killedServer},
		{"PostgreSQL stopped and started", stoppedDatabase},
		{"PostgreSQL killed under load", killedDatabase},
		{"master key rotated", rotatedKey},
		{"tenant's policy", tenantPolicy},
		{"hostile administrator", hostileAdministrator},
		{"backup and restore", backedUp},
	} {
		ok := t.Run(s.name, func(t *testing.T) {
			sub := &pair{TB: t, c: p.c, a: p.a, b: p.b, front: p.front, chip: p.chip, roots: p.roots, pin: p.pin, token: p.token, platform: p.platform}
			sub.digests.Store(p.digests.Load())
			s.run(t, sub)
			p.digests.Store(sub.digests.Load())
		})
		if !ok {
			return
		}
	}
	head := p.a.must("audit", "verify", "--config", p.a.config)
	if !strings.Contains(head, ":") || p.b.must("audit", "verify", "--config", p.b.config, "--expect", head) == "" {
		t.Errorf("audit head %q", head)
	}
	for _, m := range []*member{p.a, p.b} {
		argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.process.Process.Pid))
		if err != nil || strings.Contains(string(argv)+m.log.String(), databasePassword) {
			t.Errorf("the database's password is in the server's arguments or log, %v", err)
		}
	}
}

func inTurn(t *testing.T, p *pair) {
	r := p.registration("turn")
	p.register(p.front.url(), r)
	for range 10 {
		g := p.guest(r)
		g.want("auth", g.auth(p.front.url()), "")
		g.want("attest", g.attest(p.front.url()), "")
		g.want("key", g.fetch(p.front.url()), "")
	}
	for _, first := range []*member{p.a, p.b} { // and surely not at one server by chance
		then := p.b
		if first == p.b {
			then = p.a
		}
		g := p.guest(r)
		g.want("auth", g.auth(first.url), "")
		g.want("attest", g.attest(then.url), "")
		g.want("key", g.fetch(first.url), "")
		g.want("the same nonce later", g.attest(first.url), kbs.CodeSessionExpired)
	}
}

// oneNonce sends the same Evidence to both servers at once, many times.
func oneNonce(t *testing.T, p *pair) {
	r := p.registration("nonce")
	p.register(p.a.url, r)
	for round := range 40 {
		g := p.guest(r)
		g.want("auth", g.auth(p.front.url()), "")
		var accepted atomic.Int32
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				switch code := g.attest([]*member{p.a, p.b}[i%2].url); code {
				case "":
					accepted.Add(1)
				case kbs.CodeSessionExpired:
				default:
					t.Errorf("attest: %s", code)
				}
			})
		}
		wg.Wait()
		if accepted.Load() != 1 {
			t.Fatalf("round %d: accepted %d times", round, accepted.Load())
		}
	}
}

// oneRelease has many guests come for the one release that is allowed.
func oneRelease(t *testing.T, p *pair) {
	r := p.registration("once")
	r.Registration.Release = &kbs.ReleaseLimits{Total: 1}
	p.register(p.b.url, r)
	var guests []*guest
	for range 12 {
		g := p.guest(r)
		g.want("auth", g.auth(p.front.url()), "")
		g.want("attest", g.attest(p.front.url()), "")
		guests = append(guests, g)
	}
	var released atomic.Int32
	var wg sync.WaitGroup
	for i, g := range guests {
		wg.Go(func() {
			switch code := g.fetch([]*member{p.a, p.b}[i%2].url); code {
			case "":
				released.Add(1)
			case kbs.CodeAttestationDenied:
			default:
				t.Errorf("key: %s", code)
			}
		})
	}
	wg.Wait()
	if released.Load() != 1 {
		t.Errorf("released to %d guests, expected 1", released.Load())
	}
}

// killedServer kills the server that has the guest's connection, before each
// step: the guest's own client finishes with the other.
func killedServer(t *testing.T, p *pair) {
	r := p.registration("killed")
	p.register(p.a.url, r)
	for range 2 {
		var victim *member
		c := kbs.Client{URLs: []string{p.front.url()}, PinnedKeys: []string{p.pin}, Wait: time.Minute}
		k, err := c.Release(t.Context(), kbs.ReleaseRequest{
			WorkloadID: "killed", TEE: kbs.Sample, IdentityDigest: r.Registration.IdentityDigest, FooterDigest: r.Registration.FooterDigest,
			Attest: func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
				if victim == nil {
					victim = p.front.latest()
					victim.kill()
				}
				return p.evidence(r, rd)
			},
		})
		if err != nil || string(k.Reveal()) != string(r.DiskKey) {
			t.Fatalf("Release: %v", err)
		}
		victim.start()
	}
	for _, x := range [][2]*member{{p.a, p.b}, {p.b, p.a}} { // the very session goes on
		g := p.guest(r)
		g.want("auth", g.auth(x[0].url), "")
		g.want("attest", g.attest(x[0].url), "")
		x[0].kill()
		g.want("key", g.fetch(x[1].url), "")
		g.want("key by the balancer", g.fetch(p.front.url()), "")
		x[0].start()
	}
}

func stoppedDatabase(t *testing.T, p *pair) {
	r := p.registration("stopped")
	p.register(p.a.url, r)
	granted, fresh := p.guest(r), p.guest(r)
	granted.want("auth", granted.auth(p.a.url), "")
	granted.want("attest", granted.attest(p.b.url), "")
	fresh.want("auth", fresh.auth(p.b.url), "")
	p.c.end(syscall.SIGINT)
	for _, m := range []*member{p.a, p.b} {
		granted.want("key without a database", granted.fetch(m.url), kbs.CodeUnavailable)
		fresh.want("attest without a database", fresh.attest(m.url), kbs.CodeUnavailable)
		if status, _ := get(m.url + "/healthz"); status != http.StatusOK {
			t.Errorf("/healthz answers %d", status)
		}
		if status, after := get(m.url + "/readyz"); status != http.StatusServiceUnavailable || after == "" {
			t.Errorf("/readyz answers %d with Retry-After %q", status, after)
		}
		var refused *kbs.ProblemError
		if _, err := p.admin(m.url).Register(t.Context(), p.registration("lost")); !errors.As(err, &refused) || refused.Status != 503 || refused.Code != kbs.CodeUnavailable {
			t.Errorf("Register: %v", err)
		}
	}
	p.a.kill()
	p.a.launch() // it waits for its database
	time.Sleep(300 * time.Millisecond)
	p.c.start()
	p.await(p.a, http.StatusOK)
	p.await(p.b, http.StatusOK)
	granted.want("key", granted.fetch(p.b.url), "")
	fresh.want("attest", fresh.attest(p.a.url), "")
	fresh.want("key", fresh.fetch(p.b.url), "")
}

// killedDatabase kills every process of PostgreSQL while both servers register.
func killedDatabase(t *testing.T, p *pair) {
	var mu sync.Mutex
	acknowledged := map[string]kbs.Digest{}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(acknowledged)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i, m := range []*member{p.a, p.b, p.a, p.b} {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				r := p.registration(fmt.Sprintf("load%d-%d", i, n))
				if _, err := p.admin(m.url).Register(t.Context(), r); err == nil {
					mu.Lock()
					acknowledged[r.Registration.WorkloadID] = r.Registration.IdentityDigest
					mu.Unlock()
				} else {
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	for range 3 {
		before := count()
		if !eventually(func() bool { return count() >= before+10 }) {
			t.Error("registrations are not acknowledged")
		}
		p.c.end(syscall.SIGQUIT) // no shutdown, no checkpoint: what was not flushed is gone
		p.c.start()
		p.await(p.a, http.StatusOK)
		p.await(p.b, http.StatusOK)
	}
	close(stop)
	wg.Wait()
	for id, digest := range acknowledged {
		w, err := p.admin(p.front.url()).Get(t.Context(), id)
		if err != nil || w.Registration.IdentityDigest != digest {
			t.Errorf("lost: %s: %v", id, err)
		}
	}
	p.a.must("audit", "verify", "--config", p.a.config)
}

// rotatedKey changes the MasterKey on one server's machine. The other refuses
// until it has the key too, and then goes on without a restart.
func rotatedKey(t *testing.T, p *pair) {
	r := p.registration("rotated")
	p.register(p.a.url, r)
	p.a.must("master-key", "rotate", "--config", p.a.config)
	p.await(p.b, http.StatusServiceUnavailable)
	p.await(p.a, http.StatusOK)
	g := p.guest(r)
	g.want("auth", g.auth(p.b.url), "")
	g.want("attest at the one without the key", g.attest(p.b.url), kbs.CodeUnavailable)
	g = p.guest(r)
	g.want("auth", g.auth(p.b.url), "")
	g.want("attest", g.attest(p.a.url), "")
	g.want("key", g.fetch(p.a.url), "")
	if out, err := p.b.command("serve", "--config", p.b.config, "--check-config").CombinedOutput(); err == nil || !strings.Contains(string(out), "master key") {
		t.Errorf("a server with the old master key: %v: %s", err, out)
	}
	if out, err := exec.Command("cp", "-a", filepath.Join(p.a.dir, "master-key"), p.b.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.await(p.b, http.StatusOK)
	g = p.guest(r)
	g.want("auth", g.auth(p.a.url), "")
	g.want("attest", g.attest(p.b.url), "")
	g.want("key", g.fetch(p.b.url), "")
}

// tenantPolicy changes a tenant's policy at one server: the next guest at the
// other feels it.
func tenantPolicy(t *testing.T, p *pair) {
	p.a.must("tenant", "set", "acme", "--config", p.a.config)
	r := p.registration("acme.shop")
	p.register(p.a.url, r)
	attest := func(what string, at *member, failed string) {
		t.Helper()
		c := kbs.Client{URLs: []string{at.url}, PinnedKeys: []string{p.pin}}
		_, err := c.Release(t.Context(), kbs.ReleaseRequest{
			WorkloadID: "acme.shop", TEE: kbs.Sample, IdentityDigest: r.Registration.IdentityDigest, FooterDigest: r.Registration.FooterDigest,
			Attest: func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) { return p.evidence(r, rd) },
		})
		var refused *kbs.ProblemError
		if failed == "" && err == nil {
			return
		}
		if !errors.As(err, &refused) || refused.Code != kbs.CodeAttestationDenied {
			t.Errorf("%s: %v", what, err)
			return
		}
		s, err := p.admin(p.front.url()).Session(t.Context(), refused.Session)
		if err != nil {
			t.Fatal(err)
		}
		var rules []string
		for _, x := range s.Result.Rules {
			if !x.Pass && x.Rule != "appraisal" {
				rules = append(rules, x.Rule+" of the "+x.Level)
			}
		}
		if strings.Join(rules, ", ") != failed {
			t.Errorf("%s: failed %v, expected %q", what, rules, failed)
		}
	}
	attest("without a policy", p.b, "")
	genoa := kbs.Policy{CEL: []kbs.Expression{{Name: "not-genoa", Expression: `claims.snp.product != "Genoa"`, Hint: "buy another machine"}}}
	if err := p.admin(p.a.url).SetTenantPolicy(t.Context(), "acme", genoa); err != nil {
		t.Fatal(err)
	}
	if got, err := p.admin(p.b.url).TenantPolicy(t.Context(), "acme"); err != nil || !reflect.DeepEqual(*got, genoa) {
		t.Errorf("the policy set at a reads at b as %+v, %v", got, err)
	}
	attest("at b under a's policy", p.b, "cel:not-genoa of the tenant")
	attest("at a", p.a, "cel:not-genoa of the tenant")
	genoa.CEL[0].Expression = `claims.snp.product == "Genoa"`
	if err := p.admin(p.b.url).SetTenantPolicy(t.Context(), "acme", genoa); err != nil {
		t.Fatal(err)
	}
	attest("at a under b's policy", p.a, "")
	if err := p.admin(p.b.url).RemoveTenantPolicy(t.Context(), "acme"); err != nil {
		t.Fatal(err)
	}
	if got, err := p.admin(p.a.url).TenantPolicy(t.Context(), "acme"); err == nil {
		t.Errorf("the policy removed at b reads at a as %+v", got)
	}
	attest("with the policy gone", p.a, "")
}

// hostileAdministrator edits the database of running servers.
func hostileAdministrator(t *testing.T, p *pair) {
	victim, own := p.registration("victim"), p.registration("own")
	p.register(p.a.url, victim)
	p.register(p.a.url, own)
	p.c.sql("attest", `UPDATE workloads SET disk_key = (SELECT disk_key FROM workloads WHERE id = 'victim') WHERE id = 'own'`)
	g := p.guest(own)
	g.want("auth", g.auth(p.a.url), "")
	g.want("attest", g.attest(p.a.url), "")
	g.want("key in another's row", g.fetch(p.b.url), kbs.CodeInternal)

	v, o := p.guest(victim), p.guest(own)
	for _, x := range []*guest{v, o} {
		x.want("auth", x.auth(p.a.url), "")
		x.want("attest", x.attest(p.b.url), "")
	}
	p.c.sql("attest", `UPDATE session_marks SET granted = (SELECT granted FROM session_marks WHERE granted IS NOT NULL ORDER BY expires DESC LIMIT 1)`)
	if a, b := v.fetch(p.a.url), o.fetch(p.b.url); a == "" && b == "" {
		t.Error("two sessions with one grant both released")
	}
	p.c.sql("attest", "DELETE FROM session_marks")
	v.want("session forgotten", v.fetch(p.a.url), kbs.CodeNotAttested)
	if out := p.c.sql("attest", `DO $$ BEGIN DELETE FROM audit; EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLERRM; END $$`); !strings.Contains(out, "append-only") {
		t.Errorf("audit rows can be deleted by plain SQL: %s", out)
	}
}

func backedUp(t *testing.T, p *pair) {
	identity := filepath.Join(t.TempDir(), "identity")
	write(t, identity, []byte("AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX\n"))
	const recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
	file := filepath.Join(t.TempDir(), "backup.age")
	p.a.must("backup", "--config", p.a.config, "--recipient", recipient, "--output", file, "--with-master-key")
	p.c.sql("postgres", "CREATE DATABASE restored")
	c := p.member("c", "restored")
	c.must("restore", "--config", c.config, "--identity", identity, file)
	if exists(filepath.Join(c.dir, "store.db")) {
		t.Error("restore left a copy of the store in a file")
	}
	c.must("audit", "verify", "--config", c.config)
	c.start()
	r := p.registration("turn")
	r.Registration.ReferenceValues.Measurements[0].LaunchDigest = kbs.LaunchDigest{1, 0, 1} // its first
	g := p.guest(r)
	g.want("auth", g.auth(c.url), "")
	g.want("attest", g.attest(c.url), "")
	g.want("key", g.fetch(c.url), "")
	if out, err := c.command("restore", "--config", c.config, "--data", filepath.Join(t.TempDir(), "d"), "--identity", identity, file).CombinedOutput(); err == nil || !strings.Contains(string(out), "holds one already") {
		t.Errorf("restored over a store: %v: %s", err, out)
	}
}
