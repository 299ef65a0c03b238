package guest

import (
	"context"
	"sync"
	"time"
)

// stuckGrace is how long a step may take to notice that the boot is over. One
// that waits for the host's disk in the kernel never does.
const stuckGrace = 10 * time.Second

// closeTimeout bounds what the end of a guest waits for its disk.
const closeTimeout = 30 * time.Second

// watch calls abandon if ctx has ended and what it is for has not, until over is
// called.
func watch(ctx context.Context, spawn guard, abandon func(cause error)) (over func()) {
	done := make(chan struct{})
	spawn("watching the boot", func() {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
		select {
		case <-done:
		case <-time.After(stuckGrace):
			abandon(context.Cause(ctx))
		}
	})
	return sync.OnceFunc(func() { close(done) })
}

// within runs do, and goes on without it after limit: then late is told.
func within(limit time.Duration, do func(), late func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }() // the VM ends anyhow
		do()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		late()
	}
}
