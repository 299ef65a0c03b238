package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/ccrun/ccrun/cmd/face"
)

// progress is one line on a terminal, for work that takes over a second.
type progress struct {
	w      io.Writer // nil: show nothing
	mu     sync.Mutex
	start  time.Time
	last   time.Time
	active bool
}

const (
	progressDelay    = time.Second
	progressInterval = 200 * time.Millisecond
)

func newProgress(c *cli.Context) *progress {
	p := &progress{start: time.Now()}
	if face.LogLevel(c) != "error" && term.IsTerminal(int(os.Stderr.Fd())) {
		p.w = os.Stderr
	}
	return p
}

// show is workload.Options.Progress.
func (p *progress) show(stage string, done, total int64) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if now.Sub(p.start) < progressDelay || now.Sub(p.last) < progressInterval {
		return
	}
	p.last, p.active = now, true
	if total > 0 {
		fmt.Fprintf(p.w, "\r\x1b[K%s: %d of %d MiB (%d %%)", stage, done>>20, total>>20, done*100/total)
		return
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s: %d MiB", stage, done>>20)
}

// clear wipes the line before anything else is printed.
func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.active = false
}
