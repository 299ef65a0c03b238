package command

import (
	"context"
	"crypto/x509"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/luks/lukstest"
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

// killed is what was acknowledged by servers that were killed since.
type killed struct {
	*testing.T
	dir, token string
	config     string // the servers' configuration file, and the commands'
	guests     *guests
	roots      *x509.CertPool
	owners     owners
	random     *mathrand.Rand

	mu         sync.Mutex
	due        moment
	registered []string // in this round
	attempts   []*attempt
	published  kbs.Keyslot
	sum        map[string]int
	inFlight   int
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

// Each kind of moment is the end of one round in so many. Nobody was told of an
// attestation that was asked for when its server was killed. In every second
// round the master key is rotated all the while.
var moments = []moment{
	{what: fetched, after: 6},
	{what: sealedAnew, after: 1},
	{what: asked, after: 3},
	{what: rotated, after: 1},
	{what: revoked, after: 2},
	{what: registered, after: 6},
	{what: readAgain, after: 1},
	{what: valued, after: 3},
}

const (
	fetched    = "keys fetched"
	asked      = "attestations asked for"
	granted    = "attestations granted"
	rotated    = "rotations"
	registered = "registrations"
	revoked    = "revocations"
	valued     = "resources set"
	readAgain  = "configurations read again"
	tenanted   = "tenants set"
	sealedAnew = "rotations of the master key"
	replayed   = "replays"
)

// happened counts towards the moment that is due.
func (k *killed) happened(what string) {
	k.count(what)
	k.mu.Lock()
	defer k.mu.Unlock()
	if what != k.due.what {
		return
	}
	if k.due.after--; k.due.after == 0 {
		close(k.due.come)
	}
}

func (k *killed) count(what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sum[what]++
}

// TestKillUnderLoad kills the server while owners register, rotate, revoke, set
// resources and tenants and change the configuration, the master key is rotated
// and guests attest, and starts it again: whatever was acknowledged is there and
// in the audit log, no nonce is good for a second attestation, sessions die
// cleanly, the audit chain is whole and the published keyslot opens. CCRUN_KILLS
// is how often (4; with CCRUN_LONG, 12); more often until an attestation was cut
// off. With a database for tests (databasetest) the store is in PostgreSQL.
func TestKillUnderLoad(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	k := &killed{T: t, published: firstKeyslot(t, "disk key of rotated"), sum: map[string]int{}, random: mathrand.New(mathrand.NewPCG(seed, 0))}
	env := k.init()
	kills := howManyKills(t)
	first := k.random.IntN(len(moments))
	rounds := 0
	for ; rounds < kills || k.inFlight == 0; rounds++ {
		if k.random.IntN(5) == 0 {
			killStarting(t, env, time.Duration(k.random.Int64N(int64(150*time.Millisecond))), "--config", k.config)
		}
		log := new(buffer)
		cmd, url := processTo(t, log, env, "--config", k.config, "--log-level", "debug")
		if rounds == 0 {
			k.guests.register(t, k.dir, url, k.token)
			k.register(url, "rotated", 2)
		}
		k.replay(url)
		k.due = moments[(first+rounds)%len(moments)]
		k.due.after += k.random.IntN(10)
		if k.due.what == sealedAnew || k.due.what == readAgain {
			k.due.after = 1 + k.random.IntN(3)
		}
		k.due.come = make(chan struct{})
		due := fmt.Sprintf("killed after %d %s", k.due.after, k.due.what)
		k.load(url, first+rounds, log, cmd)
		_ = cmd.Wait()
		k.check(first + rounds)
		if t.Failed() {
			t.Fatalf("round %d, %s\n%s", rounds, due, tail(log.String(), 40))
		}
	}
	mustRun(t, "master-key", "rotate", "--config", k.config) // ends one that was killed
	mustRun(t, "audit", "verify", "--config", k.config)
	if seen := k.witnessed(); seen < rounds {
		t.Errorf("the witness saw %d checkpoints, expected one for each start and more", seen)
	}
	t.Logf("%d kills; %v, %d attestations cut off, %d audit entries", rounds, k.sum, k.inFlight, k.entries)
	for _, what := range []string{granted, fetched, replayed, rotated, registered, revoked, valued, readAgain, sealedAnew} {
		if k.sum[what] == 0 {
			t.Errorf("the test shows nothing of %s: %v", what, k.sum)
		}
	}
}

// init makes the store, the machine of the guests and what servers need to
// trust it.
func (k *killed) init() (env []string) {
	k.owners.witness = k.TempDir()
	k.dir, k.config = filepath.Join(k.TempDir(), "data"), filepath.Join(k.TempDir(), "serve.toml")
	if databasetest.OnPostgres() {
		k.owners.database = databasetest.Place(k)
	}
	k.configure(0)
	k.token = strings.TrimSpace(mustRun(k, "init", "--config", k.config, "--name", "127.0.0.1"))
	mustRun(k, "audit", "introduce", "--config", k.config, "--witness", stormWitness)
	k.guests, env = newGuests(k, k.dir)
	k.roots = admin(k, k.dir, "", "").RootCAs
	return env
}

func tail(log string, lines int) string {
	all := strings.Split(log, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func howManyKills(t *testing.T) int {
	t.Helper()
	kills := 4
	if os.Getenv("CCRUN_LONG") != "" {
		kills *= 3
	}
	if s := os.Getenv("CCRUN_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 4 {
			t.Fatalf("CCRUN_KILLS=%s: expected a number from 4", s)
		}
		kills = n
	}
	return kills
}

func (k *killed) register(url, id string, n int) {
	if _, err := admin(k, k.dir, url, k.token).Register(context.Background(), registration(id, n)); err != nil {
		return
	}
	k.mu.Lock()
	k.registered = append(k.registered, id)
	k.mu.Unlock()
	k.promise("workload.register", id, "")
	k.happened(registered)
}

// load works until the moment has come and the server is killed.
func (k *killed) load(url string, round int, log *buffer, server *exec.Cmd) {
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
	k.own(work, owner, round, log, server, gone)
	select {
	case <-k.due.come:
	case <-time.After(2 * time.Minute):
		k.Error("the moment does not come: what does the server do?")
	}
	_ = server.Process.Kill()
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
		k.promise("workload.rotate.commit", "rotated", "")
		k.happened(rotated)
	}
}
