package guest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// stuckGrace is how long a step may take to notice that the boot is over. One
// that waits for the host's disk in the kernel never does.
const stuckGrace = 10 * time.Second

// closeTimeout bounds what the end of a guest waits for its disk.
const closeTimeout = 30 * time.Second

// watch ends the VM if ctx has ended and the boot has not, until over is called.
func (b *boot) watch(ctx context.Context) (over func()) {
	done := make(chan struct{})
	b.spawn("watching the boot", func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		select {
		case <-done:
		case <-time.After(stuckGrace):
			b.abandon(context.Cause(ctx))
		}
	})
	return sync.OnceFunc(func() { close(done) })
}

// abandon ends the VM as it is: whatever it waits for is in the host's hand.
func (b *boot) abandon(cause error) {
	b.console.fail(fmt.Errorf("%s: %w", b.at.Load(), cause))
	status := statusBootFailed
	if s := (*statusError)(nil); errors.As(cause, &s) {
		status = s.status
	}
	b.report(status)
	b.end()
}

// within runs do, and goes on without it after limit.
func (b *boot) within(limit time.Duration, what string, do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // the VM ends anyhow
		do()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		b.console.line(fmt.Sprintf("%s takes longer than %s: going on without; next: check the host's disk", what, limit))
	}
}
