package main

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
)

// TestStopWhileItPulls: a signal to stop ends what has no workload yet; any other
// does not.
func TestStopWhileItPulls(t *testing.T) {
	for name, c := range map[string]struct {
		signals []os.Signal
		create  func(context.Context) (string, error)
		id      string
		stopped int
		fails   bool
	}{
		"stopped":       {[]os.Signal{syscall.SIGHUP, syscall.SIGTERM}, pulls, "", 143, false},
		"interrupted":   {[]os.Signal{syscall.SIGINT}, pulls, "", 130, false},
		"made":          {nil, func(context.Context) (string, error) { return "id", nil }, "id", 0, false},
		"failed":        {[]os.Signal{syscall.SIGHUP}, func(context.Context) (string, error) { return "", errors.New("no such image") }, "", 0, true},
		"made just now": {[]os.Signal{syscall.SIGTERM}, func(ctx context.Context) (string, error) { <-ctx.Done(); return "id", nil }, "id", 143, false},
	} {
		signals := make(chan os.Signal, 8)
		for _, s := range c.signals {
			signals <- s
		}
		id, stopped, err := unlessStopped(context.Background(), c.create, signals)
		if id != c.id || stopped != c.stopped || (err != nil) != c.fails {
			t.Errorf("%s: %q, status %d, %v", name, id, stopped, err)
		}
	}
}

func pulls(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }
