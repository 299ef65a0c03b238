package workload

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/workload/destination"
	"github.com/ccrun/ccrun/workload/scratch"
)

// Environment is what every recipe takes from its surroundings. All of it has
// defaults.
type Environment struct {
	System   *types.SystemContext // registries, policy, credentials; nil: the system's
	TempDir  string               // for encrypted scratch files; empty: TMPDIR or /var/tmp
	Rand     io.Reader            // nil: crypto/rand
	Now      func() time.Time     // nil: time.Now
	Progress func(stage string, done, total int64)
	Warn     func(string)
}

func (e *Environment) setDefaults() {
	if e.TempDir == "" {
		e.TempDir = scratch.DefaultDir()
	}
	if e.Rand == nil {
		e.Rand = rand.Reader
	}
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.Progress == nil {
		e.Progress = func(string, int64, int64) {}
	}
	if e.Warn == nil {
		e.Warn = func(string) {}
	}
	sys := types.SystemContext{}
	if e.System != nil {
		sys = *e.System
	}
	sys.OSChoice, sys.ArchitectureChoice = "linux", "amd64" // the only guest there is
	sys.BigFilesTemporaryDir = e.TempDir
	e.System = &sys
}

// meter reports progress of one stage.
func (e *Environment) meter(stage string, total int64) func(int64) {
	var mu sync.Mutex
	var done int64
	return func(n int64) {
		mu.Lock()
		defer mu.Unlock()
		done += n
		e.Progress(stage, done, total)
	}
}

// meterWriter counts, and stops when the recipe is cancelled.
type meterWriter struct {
	ctx  context.Context
	w    io.Writer
	done func(int64)
}

func (m *meterWriter) Write(p []byte) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := m.w.Write(p)
	m.done(int64(n))
	return n, err
}

// target is an opened destination, with its full name and what it needs for a
// while.
type target struct {
	destination.Image
	name string // with transport
	temp *scratch.Dir
	warn func(string)
}

// openTarget checks name and prepares to write there. The libraries collect a
// layer for local storage in a named file before they import it: it gets a
// directory that the next build removes if this one is killed. Nothing else
// needs names for what it keeps for a while.
func (e *Environment) openTarget(ctx context.Context, name string) (*target, error) {
	scratch.Sweep(e.TempDir)
	o, sys := &target{warn: e.Warn}, *e.System
	if t := alltransports.TransportFromImageName(name); t == nil || t.Name() == istorage.Transport.Name() {
		var err error
		if o.temp, err = scratch.NewDir(e.TempDir); err != nil {
			return nil, err
		}
		sys.BigFilesTemporaryDir = o.temp.Path
	}
	var err error
	if o.Image, o.name, err = destination.Open(ctx, &sys, name); err != nil {
		return nil, errors.Join(err, o.temp.Close())
	}
	return o, nil
}

// close drops what was not published. What that leaves behind, the next build
// removes; but whoever cares for the disk should know.
func (o *target) close() {
	if err := errors.Join(o.Image.Close(), o.temp.Close()); err != nil {
		o.warn(fmt.Sprintf("cleaning up after writing %s: %v", o.name, err))
	}
}
