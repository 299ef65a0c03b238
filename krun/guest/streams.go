package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/sealedlog"
)

// output carries the workload's stdout and stderr to the host. Pipes, not the
// devices themselves: what the host types must not become the workload's
// input, and no program should take the host for a terminal.
type output struct {
	stdout, stderr *os.File
	ports          []*os.File
	done           chan struct{}
	copies         int
	spawn          guard
	passed         atomic.Int64  // bytes that the host took
	progress       func() int64  // of them
	patience       time.Duration // of wait, for a host that takes none
	giveUp         func()        // ends writing to the console
}

// outputPatience is how long the last output waits for a host that takes none
// of it, once the workload has ended.
const outputPatience = 30 * time.Second

// openOutput leads the workload's streams where the measured policy says.
func (b *boot) openOutput() (*output, error) {
	o := &output{done: make(chan struct{}, 2), spawn: b.spawn, patience: outputPatience,
		giveUp: func() { b.console.closed.Store(true) }}
	o.progress = o.passed.Load
	switch policy := b.identity.Policy.Logs; policy {
	case krun.LogsNone:
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		o.stdout, o.stderr = null, null
		return o, err
	case krun.LogsEncrypted:
		return o, o.seal(b.log)
	case krun.LogsHost:
		return b.openHostOutput(o)
	default:
		return nil, fmt.Errorf("logs policy %q, expected one of %v", policy, krun.LogsPolicies())
	}
}

// seal has both streams go into the sealed log.
func (o *output) seal(s *sealed) (err error) {
	if s == nil {
		return errors.New("the log that is to be sealed was not opened")
	}
	o.progress = s.passed.Load
	if o.stdout, err = o.pipeTo(s.w.Stream(sealedlog.Stdout)); err == nil {
		o.stderr, err = o.pipeTo(s.w.Stream(sealedlog.Stderr))
	}
	return err
}

// openHostOutput gives each stream its port. On a machine without both ports the
// streams share the console, and one pipe, so that their order is kept.
func (b *boot) openHostOutput(o *output) (*output, error) {
	err := o.openPorts()
	if errors.Is(err, errNoPort) {
		o.stdout, err = o.pipeTo(b.console)
		o.stderr = o.stdout
		return o, err
	}
	if err != nil {
		return nil, err
	}
	if o.stdout, err = o.pipeTo(o.ports[0]); err != nil {
		return nil, err
	}
	o.stderr, err = o.pipeTo(o.ports[1])
	return o, err
}

func (o *output) openPorts() error {
	for _, name := range []string{krun.StdoutPort, krun.StderrPort} {
		path, err := findPort(portsClass, name)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", name, err)
		}
		o.ports = append(o.ports, f)
	}
	return nil
}

// pipeTo copies until every holder of the writing end is gone, which the end
// of the workload's PID namespace guarantees.
func (o *output) pipeTo(to io.Writer) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o.copies++
	o.spawn("passing the workload's output on", func() {
		_, _ = io.Copy(&countingWriter{to, &o.passed}, struct{ io.Reader }{r})
		_ = r.Close()
		o.done <- struct{}{}
	})
	return w, nil
}

// closeWriters leaves the workload the only holder of its streams. Closing a
// shared file twice is an error without a consequence.
func (o *output) closeWriters() { _ = errors.Join(o.stdout.Close(), o.stderr.Close()) }

// wait returns when the host has been given everything, or takes no more: a disk
// must not stay open because nobody reads a log.
func (o *output) wait() {
	before := o.progress()
	for left := o.copies; left > 0; {
		select {
		case <-o.done:
			left--
		case <-time.After(o.patience):
			if now := o.progress(); now != before {
				before = now
				continue
			}
			o.giveUp()
			left = 0
		}
	}
	for _, p := range o.ports {
		_ = p.Close()
	}
}
