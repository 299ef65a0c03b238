package command

import (
	"context"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/keyslot"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/luks/lukstest"
	"github.com/ccrun/ccrun/secret"
)

func firstKeyslot(t *testing.T, diskKey string) kbs.Keyslot {
	t.Helper()
	s, err := lukstest.New(t, diskKey, luks.FastKDF(), true).Header.SealedSlot()
	if err != nil {
		t.Fatal(err)
	}
	return kbs.Keyslot{KDF: kbs.KeyslotKDF{Type: s.KDF.Type, Salt: s.Salt, Iterations: s.KDF.Iterations},
		Area: s.Area, KeyBytes: s.VolumeKeyBytes, DigestSalt: s.DigestSalt, DigestIterations: s.DigestIterations, Digest: s.Digest}
}

// attempt is one guest's session, with what it takes to play it again.
type attempt struct {
	bearer, attest   string // the token, and the body of the request
	granted, fetched bool   // acknowledged
}

// killed is what was acknowledged by servers that were killed since.
type killed struct {
	*testing.T
	dir, token string
	guests     *guests
	roots      *x509.CertPool

	mu         sync.Mutex
	due        moment
	registered []string // in this round
	attempts   []*attempt
	published  kbs.Keyslot
	sum        struct{ registered, rotated, granted, fetched, inFlight, replayed int }
	entries    int64 // of the audit, checked so far
	grants     int   // among them
}

// moment is when a round's server is killed: after so many of what happens.
// The clock has no say in it, so that a slow machine does the same work.
type moment struct {
	what  string
	after int
	come  chan struct{}
}

// Each kind of moment is the end of one round in four. Nobody was told of an
// attestation that was asked for when its server was killed.
var moments = []moment{
	{what: fetched, after: 6},
	{what: asked, after: 3},
	{what: rotated, after: 1},
	{what: registered, after: 6},
}

const fetched, asked, rotated, registered = "keys fetched", "attestations asked for", "rotations", "registrations"

// happened counts towards the moment that is due.
func (k *killed) happened(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if what != k.due.what {
		return
	}
	if k.due.after--; k.due.after == 0 {
		close(k.due.come)
	}
}

// TestKillUnderLoad kills the server while owners register and rotate and
// guests attest, and starts it again: whatever was acknowledged is there, no
// nonce is good for a second attestation, sessions die cleanly, the audit chain
// is whole and the published keyslot opens. CCRUN_KILLS is how often (4; with
// CCRUN_LONG, 12); more often until an attestation was cut off.
func TestKillUnderLoad(t *testing.T) {
	k := &killed{T: t, published: firstKeyslot(t, "disk key of rotated")}
	k.dir, k.token = initDir(t)
	var env []string
	k.guests, env = newGuests(t, k.dir)
	k.roots = admin(t, k.dir, "", "").RootCAs
	seed := uint64(time.Now().UnixNano())
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	kills := howManyKills(t)
	for round := 0; round < kills || k.sum.inFlight == 0; round++ {
		if random.IntN(5) == 0 {
			k.killStarting(env, time.Duration(random.Int64N(int64(150*time.Millisecond))))
		}
		cmd, url := process(t, env, "--data", k.dir, "--log-level", "debug")
		if round == 0 {
			k.guests.register(t, k.dir, url, k.token)
			k.register(url, "rotated", 2)
		}
		k.replay(url)
		k.due = moments[round%len(moments)]
		k.due.after += random.IntN(10)
		k.due.come = make(chan struct{})
		due := fmt.Sprintf("killed after %d %s", k.due.after, k.due.what)
		k.load(url, round, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		k.check(round)
		if t.Failed() {
			t.Fatalf("round %d, %s", round, due)
		}
	}
	mustRun(t, "audit", "verify", "--data", k.dir)
	t.Logf("%+v, %d audit entries", k.sum, k.entries)
	if s := k.sum; s.registered < 6 || s.rotated == 0 || s.granted < 6 || s.fetched < 6 || s.replayed < 6 {
		t.Errorf("the test shows nothing: %+v", s)
	}
}

func howManyKills(t *testing.T) int {
	t.Helper()
	kills := len(moments)
	if os.Getenv("CCRUN_LONG") != "" {
		kills *= 3
	}
	if s := os.Getenv("CCRUN_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < len(moments) {
			t.Fatalf("CCRUN_KILLS=%s: expected a number from %d", s, len(moments))
		}
		kills = n
	}
	return kills
}

// killStarting kills a server before it has said that it listens, or soon after.
func (k *killed) killStarting(env []string, after time.Duration) {
	self, err := os.Executable()
	if err != nil {
		k.Fatal(err)
	}
	cmd := exec.Command(self, "serve", "--listen", "127.0.0.1:0", "--data", k.dir)
	cmd.Env = append(append(os.Environ(), asMain+"=1"), env...)
	if err := cmd.Start(); err != nil {
		k.Fatal(err)
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func (k *killed) register(url, id string, n int) {
	if _, err := admin(k, k.dir, url, k.token).Register(context.Background(), registration(id, n)); err != nil {
		return
	}
	k.mu.Lock()
	k.registered = append(k.registered, id)
	k.sum.registered++
	k.mu.Unlock()
	k.happened(registered)
}

// load works until the moment has come and the server is killed.
func (k *killed) load(url string, round int, kill func()) {
	var wg sync.WaitGroup
	gone := make(chan struct{})
	work := func(one func(i int)) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-gone:
					return
				default:
					one(i)
				}
			}
		})
	}
	for client := range 2 {
		work(func(i int) { k.register(url, fmt.Sprintf("w-%d-%d-%d", round, client, i), 3+(round<<16|client<<15|i)) })
	}
	for range 3 {
		work(func(int) { k.attend(url) })
	}
	owner := admin(k, k.dir, url, k.token)
	work(func(int) { k.rotate(owner) })
	select {
	case <-k.due.come:
	case <-time.After(2 * time.Minute):
		k.Error("the moment does not come: what does the server do?")
	}
	kill()
	close(gone)
	wg.Wait()
}

func (k *killed) rotate(c *kbs.AdminClient) {
	a, err := c.Rotate(context.Background(), "rotated", kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: k.published}})
	if err != nil {
		return
	}
	if !a.Already {
		k.published.KDF, k.published.Area = *a.KDF, a.Area
	}
	_, err = c.Rotate(context.Background(), "rotated", kbs.RotateRequest{Commit: &kbs.RotateCommit{Rotation: a.Rotation}})
	if err == nil {
		k.sum.rotated++
		k.happened(rotated)
	}
}

// ask sends one request. With status 0 no answer came, and code says why.
func (k *killed) ask(method, url, bearer, body string, out any) (status int, code string) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		k.Error(err)
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if strings.HasSuffix(url, "/attest") {
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { k.happened(asked) },
		}))
	}
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: tlsRoots(k.roots), DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	if resp.StatusCode == http.StatusOK {
		if out != nil && json.Unmarshal(b, out) != nil {
			k.Errorf("%s %s: %s", method, url, b)
		}
		return resp.StatusCode, ""
	}
	var p kbs.Problem
	if err := kbs.UnmarshalStrict(b, &p); err != nil || p.Code == "" {
		k.Errorf("%s %s: %d %s", method, url, resp.StatusCode, b)
	}
	return resp.StatusCode, p.Code
}

// attend is one guest's handshake, as far as the server lives.
func (k *killed) attend(url string) {
	g := k.guests.request()
	var auth kbs.AuthAnswer
	in, err := json.Marshal(kbs.AuthRequest{Version: 1, TEE: kbs.Sample, WorkloadID: g.WorkloadID})
	if err != nil {
		k.Error(err)
		return
	}
	if status, _ := k.ask(http.MethodPost, url+"/v1/auth", "", string(in), &auth); status != http.StatusOK {
		return
	}
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		k.Error(err)
		return
	}
	runtime := kbs.RuntimeData{Nonce: auth.Nonce, TEEKey: kbs.TEEKey{KEM: key.KEM().ID(), Public: key.PublicKey().Bytes()},
		IdentityDigest: g.IdentityDigest, FooterDigest: g.FooterDigest}
	rd, err := kbs.Binding(g.WorkloadID, runtime)
	if err != nil {
		k.Error(err)
		return
	}
	evidence, err := g.Attest(context.Background(), rd)
	if err == nil {
		in, err = json.Marshal(kbs.AttestRequest{RuntimeData: runtime, Evidence: evidence})
	}
	if err != nil {
		k.Error(err)
		return
	}
	a := &attempt{bearer: auth.Session, attest: string(in)}
	k.mu.Lock()
	k.attempts = append(k.attempts, a)
	k.mu.Unlock()
	status, code := k.ask(http.MethodPost, url+"/v1/attest", a.bearer, a.attest, nil)
	a.granted = status == http.StatusOK
	if status > 0 && !a.granted {
		k.Errorf("attest: %d %s", status, code)
	}
	if a.granted {
		status, code = k.ask(http.MethodGet, url+"/v1/workloads/"+g.WorkloadID+"/key", a.bearer, "", nil)
		if a.fetched = status == http.StatusOK; status > 0 && !a.fetched {
			k.Errorf("key: %d %s", status, code)
		}
	}
	if a.fetched {
		k.happened(fetched)
	}
}

// replay plays every session of the round before again, twice.
func (k *killed) replay(url string) {
	for _, a := range k.attempts {
		for range 2 {
			status, code := k.ask(http.MethodPost, url+"/v1/attest", a.bearer, a.attest, nil)
			switch {
			case status == http.StatusOK && !a.granted:
				a.granted = true // it was in flight: this is the first that anybody heard of it
			case code != kbs.CodeSessionExpired:
				k.Errorf("attest with a nonce used before (granted: %v): %d %s", a.granted, status, code)
			}
			k.sum.replayed++
		}
		if status, code := k.ask(http.MethodGet, url+"/v1/workloads/"+loadWorkload+"/key", a.bearer, "", nil); status != http.StatusOK && code != kbs.CodeSessionExpired {
			k.Errorf("key of a session of before: %d %s", status, code)
		}
	}
	k.attempts = nil
}

// check compares the store of the server killed just now with what it said.
func (k *killed) check(round int) {
	master, err := masterkey.Source{Dir: k.dir}.Load(k.Context())
	if err != nil {
		k.Fatal(err)
	}
	s, err := store.Open(k.Context(), inDir(k.dir, storeName), store.Options{MasterKey: master, Rand: rand.Reader, Clock: time.Now})
	if err != nil {
		k.Fatal(err)
	}
	defer s.Close()
	for _, id := range k.registered {
		w, err := s.Workload(k.Context(), id)
		if err != nil {
			k.Errorf("lost: %v", err)
			continue
		}
		if id != "rotated" {
			if key, err := s.Release(k.Context(), id, w.Digest, store.Guest{Session: "n"}); err != nil || string(key.Reveal()) != "disk key of "+id {
				k.Errorf("%s: %v", id, err)
			}
		}
	}
	k.registered = nil
	for _, a := range k.attempts {
		switch {
		case a.granted:
			k.sum.granted++
		default:
			k.sum.inFlight++
		}
		if a.fetched {
			k.sum.fetched++
		}
	}
	err = s.Audit(k.Context(), k.entries, func(e kbs.AuditEntry) error {
		if k.entries = e.Sequence; e.Action == "attest.grant" {
			k.grants++
		}
		return nil
	})
	if err != nil {
		k.Errorf("audit: %v", err)
	}
	if w, err := s.Workload(k.Context(), loadWorkload); err != nil || int(w.Released) < k.sum.fetched || k.grants < k.sum.granted {
		k.Errorf("%d sessions got the key and %d were granted, the store knows of %d and %d: %v", k.sum.fetched, k.sum.granted, w.Released, k.grants, err)
	}
	checkOpens(k.T, s, k.published, round)
}

func checkOpens(t *testing.T, s *store.DB, slot kbs.Keyslot, round int) {
	t.Helper()
	w, err := s.Workload(t.Context(), "rotated")
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []func(context.Context, string, kbs.Digest, store.Guest) (secret.Bytes, error){s.Release, s.ReleaseStaged} {
		if k, err := release(t.Context(), "rotated", w.Digest, store.Guest{Session: "n"}); err == nil && keyslot.Opens(slot, k) == nil {
			return
		}
	}
	t.Fatalf("round %d: the published keyslot opens with no key there is", round)
}
