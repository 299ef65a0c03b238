package attestserver

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestClockStepsUnderLoad: while guests attest, the clock goes to and fro, by
// seconds, hours and months. No nonce is taken twice, no limit is passed, nobody
// gets anything but an answer that says to come again, the log has no gap, and
// once the clock is right everything works.
func TestClockStepsUnderLoad(t *testing.T) {
	const limit = 7
	r := newRig(t)
	r.register("w1", 1)
	few := request("few", 2)
	few.Registration.Release = &kbs.ReleaseLimits{Total: limit}
	if _, err := r.admin.Register(t.Context(), few); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var granted, got, twice, steps atomic.Int64
	var off atomic.Int64 // how far the clock is from where it was
	step := func(random *rand.Rand) {
		d := []time.Duration{3 * time.Second, time.Minute, time.Hour, 40 * 24 * time.Hour}[random.IntN(4)]
		if random.IntN(2) == 0 {
			d = -d
		}
		off.Add(int64(d))
		r.clock.advance(d)
		steps.Add(1)
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		wg.Go(func() {
			for range 12 {
				id, digest := "w1", byte(1)
				if random.IntN(3) == 0 {
					id, digest = "few", 2
				}
				h := r.begin(id, digest)
				if random.IntN(2) == 0 {
					step(random)
				}
				answer := h.doAttest()
				switch answer {
				case "":
					granted.Add(1)
					if h.doKey() == "" && id == "few" {
						got.Add(1)
					}
				case kbs.CodeSessionExpired:
				case kbs.CodeAttestationDenied:
					if id != "few" { // whose limit may be reached
						t.Errorf("denied")
					}
				default:
					t.Errorf("attest: %s", answer)
				}
				step(random)
				if again := h.doAttest(); again != kbs.CodeSessionExpired {
					twice.Add(1)
					t.Errorf("the nonce once more, after %q: %q", answer, again)
				}
			}
		})
	}
	wg.Wait()
	r.clock.advance(time.Duration(-off.Load()))
	if got.Load() > limit || granted.Load() == 0 {
		t.Errorf("%d of %d releases; granted in all: %d", got.Load(), limit, granted.Load())
	}
	h := r.begin("w1", 1)
	if answer := h.doAttest() + h.doKey(); answer != "" {
		t.Errorf("the clock is right again: %s", answer)
	}
	if _, err := r.admin.List(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.store.Audit(t.Context(), 0, func(kbs.AuditEntry) error { return nil }); err != nil {
		t.Error(err)
	}
	// The last entry may be of a time to come: then /readyz says so until there
	// is another.
	if status, body := r.call("GET", "/readyz", "", nil); status != http.StatusOK {
		t.Errorf("readyz: %d %s", status, body)
	}
	t.Logf("%d steps, %d granted", steps.Load(), granted.Load())
}
