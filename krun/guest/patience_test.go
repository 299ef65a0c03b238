package guest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
)

type neverAsked struct{}

func (neverAsked) Attest(context.Context, kbs.ReportData) (kbs.Evidence, error) {
	return kbs.Evidence{}, errors.New("evidence for nobody")
}

// lonely is a boot whose servers nobody listens for.
func lonely(t *testing.T, wait time.Duration) (b *boot, out interface{ String() string }, obtain []step) {
	b, out = testBoot()
	b.find = func(context.Context, kbs.TEE) (Attester, error) { return neverAsked{}, nil }
	b.disk = &disk{}
	b.identity = &krun.Identity{WorkloadID: "w", TEE: kbs.Sample, Servers: krun.Servers{
		URLs: []string{"https://127.0.0.1:1"}, PinnedKeys: []string{strings.Repeat("ab", 32)}, WaitSeconds: uint32(wait / time.Second)}}
	return b, out, []step{{"obtaining the disk key", (*boot).obtainKey}}
}

// TestWaitsBeyondTheBootsTime, for as long as the owner says, and ends as one
// that failed, not as one that was refused.
func TestWaitsBeyondTheBootsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, out, steps := lonely(t, 72*time.Hour)
		start := time.Now()
		if got := b.live(steps); got != 125 || time.Since(start) != 72*time.Hour {
			t.Errorf("status %d after %s", got, time.Since(start))
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) < 72 || len(lines) > 100 {
			t.Errorf("%d lines in three days, expected about one an hour", len(lines))
		}
		for _, want := range []string{"https://127.0.0.1:1", "connection refused", "next: check that the container's network", "trying again in"} {
			if !strings.Contains(lines[0], want) {
				t.Errorf("first line %q, expected %q", lines[0], want)
			}
		}
		last := lines[len(lines)-1]
		for _, want := range []string{"within 72h0m0s", "connection refused", "next: check that the container's network"} {
			if !strings.Contains(last, want) {
				t.Errorf("last line %q, expected %q", last, want)
			}
		}
		if before := lines[len(lines)-2]; !strings.Contains(before, "h") || !strings.Contains(before, "of waiting") {
			t.Errorf("line %q does not say how long it has waited", before)
		}
	})
}

// TestStopEndsTheWait at once, also one without an end.
func TestStopEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, out, steps := lonely(t, 0)
		start := time.Now()
		time.AfterFunc(100*time.Hour+time.Second, func() { b.hostSignal(unix.SIGTERM) })
		if got := b.live(steps); got != 143 || time.Since(start) != 100*time.Hour+time.Second || !strings.Contains(out.String(), "SIGTERM") {
			t.Errorf("status %d after %s, said %q", got, time.Since(start), out)
		}
	})
}

// TestStallEndsByTheBootsTime: the wait for servers is the only one without it,
// and takes none of it away.
func TestStallEndsByTheBootsTime(t *testing.T) {
	stall := step{"reading the disk", func(_ *boot, ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}
	wait := step{"waiting", func(b *boot, _ context.Context) error {
		defer b.limit.suspend()()
		time.Sleep(time.Hour)
		return nil
	}}
	work := step{"working", func(*boot, context.Context) error { time.Sleep(2 * time.Minute); return nil }}
	for name, x := range map[string]struct {
		steps []step
		after time.Duration
	}{
		"at once":        {[]step{stall}, bootTimeout},
		"after a wait":   {[]step{work, wait, stall}, time.Hour + bootTimeout},
		"after two":      {[]step{wait, work, wait, stall}, 2*time.Hour + bootTimeout},
		"in finding TEE": {[]step{{"obtaining the disk key", (*boot).obtainKey}}, bootTimeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			b, out, _ := lonely(t, 0)
			b.find = func(ctx context.Context, _ kbs.TEE) (Attester, error) { <-ctx.Done(); return nil, ctx.Err() }
			start := time.Now()
			if got := b.live(x.steps); got != 125 || time.Since(start) != x.after || !strings.Contains(out.String(), "longer than 5m0s") {
				t.Errorf("%s: status %d after %s, said %q", name, got, time.Since(start), out)
			}
		})
	}
}

// TestComplaintsNameEachServer of a round that is worth lines, and none of one
// that is not.
func TestComplaintsNameEachServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		c := complaints{line: func(s string) { said = append(said, s) }}
		for range 3 {
			c.retry(errors.New("first"), 0)
			c.retry(errors.New("second"), 600*time.Millisecond)
			time.Sleep(600 * time.Millisecond)
		}
		want := "first; trying again|second; trying again in 600ms|first; trying again|second; trying again in 600ms"
		if got := strings.Join(said, "|"); got != want {
			t.Errorf("said %q, expected %q", got, want)
		}
	})
}

// TestStuckStepEndsTheBoot: a step that waits in the kernel for the host's disk
// notices no deadline. The VM ends all the same, with a status and the step.
func TestStuckStepEndsTheBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, out, _ := lonely(t, 0)
		stuck, off := make(chan bool), make(chan bool)
		b.powerOff = func() { close(off) }
		start := time.Now()
		go b.live([]step{{"reading the disk", func(*boot, context.Context) error { <-stuck; return nil }}})
		<-off
		if took := time.Since(start); took != bootTimeout+stuckGrace || !strings.Contains(out.String(), "reading the disk: the boot took longer than 5m0s") ||
			!strings.Contains(out.String(), "125") {
			t.Errorf("after %s: %q", took, out)
		}
		close(stuck)
		synctest.Wait()
	})
}

// TestEndsWithoutItsDisk: nor does closing a disk that the host stalls keep a
// guest from ending.
func TestEndsWithoutItsDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, late := make(chan bool), false
		start := time.Now()
		within(closeTimeout, func() { <-stuck }, func() { late = true })
		if took := time.Since(start); took != closeTimeout || !late {
			t.Errorf("after %s, told: %t", took, late)
		}
		close(stuck)
	})
}
