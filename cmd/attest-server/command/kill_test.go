package command

import (
	"bytes"
	"context"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
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
	"github.com/ccrun/ccrun/secret"
)

func firstKeyslot(t *testing.T, diskKey string) kbs.Keyslot {
	t.Helper()
	g, err := luks.DefaultGeometry("11111111-2222-4333-8444-555555555555", 64<<10, true)
	if err != nil {
		t.Fatal(err)
	}
	vk, err := luks.NewVolumeKey(rand.Reader, g)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := luks.NewWriter(&b, g, vk, secret.New([]byte(diskKey)), luks.WriterOptions{KDF: luks.FastKDF(), Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := luks.ReadHeader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.SealedSlot()
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
	registered []string // in this round
	attempts   []*attempt
	published  kbs.Keyslot
	sum        struct{ registered, rotated, granted, fetched, inFlight, replayed int }
	entries    int64 // of the audit, checked so far
	grants     int   // among them
}

// TestKillUnderLoad kills the server at random moments while owners register
// and rotate and guests attest, and starts it again: whatever was acknowledged
// is there, no nonce is good for a second attestation, sessions die cleanly,
// the audit chain is whole and the published keyslot opens. CCRUN_KILLS is how
// often (4; with CCRUN_LONG, 10).
func TestKillUnderLoad(t *testing.T) {
	k := &killed{T: t, published: firstKeyslot(t, "disk key of rotated")}
	k.dir, k.token = initDir(t)
	var env []string
	k.guests, env = newGuests(t, k.dir)
	k.roots = admin(t, k.dir, "", "").RootCAs
	kills := 4
	if os.Getenv("CCRUN_LONG") != "" {
		kills = 10
	}
	if s := os.Getenv("CCRUN_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	random := mathrand.New(mathrand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	// On a slow machine as many more as it takes for each kind of work to get
	// through once: the time given grows.
	for round := 0; round < kills || round < 10*kills && !k.shown(); round++ {
		if random.IntN(5) == 0 {
			k.killStarting(env, time.Duration(random.Int64N(int64(150*time.Millisecond))))
		}
		cmd, url := process(t, env, "--data", k.dir, "--log-level", "debug")
		if round == 0 {
			k.guests.register(t, k.dir, url, k.token)
			k.register(url, "rotated", 2)
		}
		k.replay(url)
		delay := time.Duration(random.Int64N(int64(300*time.Millisecond))) + time.Duration(round)*10*time.Millisecond/time.Duration(1+kills/10)
		k.load(url, round, func() {
			time.Sleep(delay)
			_ = cmd.Process.Kill()
		})
		_ = cmd.Wait()
		k.check(round)
		if t.Failed() {
			t.Fatalf("round %d, killed after %v", round, delay)
		}
	}
	mustRun(t, "audit", "verify", "--data", k.dir)
	t.Logf("%d kills: %+v, %d audit entries", kills, k.sum, k.entries)
	if !k.shown() {
		t.Errorf("the test shows nothing: %+v", k.sum)
	}
}

// shown says whether every kind of work was both done and cut off.
func (k *killed) shown() bool {
	return k.sum.registered > 5 && k.sum.rotated > 0 && k.sum.granted > 5 && k.sum.fetched > 5 && k.sum.inFlight > 0 && k.sum.replayed > 5
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

func (k *killed) register(url, id string, n int) bool {
	if _, err := admin(k, k.dir, url, k.token).Register(context.Background(), registration(id, n)); err != nil {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.registered = append(k.registered, id)
	k.sum.registered++
	return true
}

// load works until the server is gone.
func (k *killed) load(url string, round int, kill func()) {
	var wg sync.WaitGroup
	for client := range 2 {
		wg.Go(func() {
			for i := 0; k.register(url, fmt.Sprintf("w-%d-%d-%d", round, client, i), 3+(round<<16|client<<15|i)); i++ {
			}
		})
	}
	for range 3 {
		wg.Go(func() {
			for k.attend(url) {
			}
		})
	}
	wg.Go(func() {
		for k.rotate(admin(k, k.dir, url, k.token)) {
		}
	})
	kill()
	wg.Wait()
}

func (k *killed) rotate(c *kbs.AdminClient) bool {
	a, err := c.Rotate(context.Background(), "rotated", kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: k.published}})
	if err != nil {
		return false
	}
	if !a.Already {
		k.published.KDF, k.published.Area = *a.KDF, a.Area
	}
	_, err = c.Rotate(context.Background(), "rotated", kbs.RotateRequest{Commit: &kbs.RotateCommit{Rotation: a.Rotation}})
	if err == nil {
		k.sum.rotated++
	}
	return err == nil
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
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: tlsRoots(k.roots), DisableKeepAlives: true}}
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

// attend is one guest's handshake; false if the server is gone.
func (k *killed) attend(url string) bool {
	g := k.guests.request()
	var auth kbs.AuthAnswer
	in, err := json.Marshal(kbs.AuthRequest{Version: 1, TEE: kbs.Sample, WorkloadID: g.WorkloadID})
	if err != nil {
		k.Error(err)
		return false
	}
	if status, _ := k.ask(http.MethodPost, url+"/v1/auth", "", string(in), &auth); status != http.StatusOK {
		return false
	}
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		k.Error(err)
		return false
	}
	runtime := kbs.RuntimeData{Nonce: auth.Nonce, TEEKey: kbs.TEEKey{KEM: key.KEM().ID(), Public: key.PublicKey().Bytes()},
		IdentityDigest: g.IdentityDigest, FooterDigest: g.FooterDigest}
	rd, err := kbs.Binding(g.WorkloadID, runtime)
	if err != nil {
		k.Error(err)
		return false
	}
	evidence, err := g.Attest(context.Background(), rd)
	if err == nil {
		in, err = json.Marshal(kbs.AttestRequest{RuntimeData: runtime, Evidence: evidence})
	}
	if err != nil {
		k.Error(err)
		return false
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
	return a.fetched
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
			if key, err := s.Release(k.Context(), id, w.Digest, "n"); err != nil || string(key.Reveal()) != "disk key of "+id {
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
	for _, release := range []func(context.Context, string, kbs.Digest, string) (secret.Bytes, error){s.Release, s.ReleaseStaged} {
		if k, err := release(t.Context(), "rotated", w.Digest, "n"); err == nil && keyslot.Opens(slot, k) == nil {
			return
		}
	}
	t.Fatalf("round %d: the published keyslot opens with no key there is", round)
}
