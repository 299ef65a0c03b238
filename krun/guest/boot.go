// Package guest is the guest agent: what PID 1 of a confidential VM does
// between the kernel's start and the workload's exit status. Everything that
// comes from outside the launch measurement (disk, ports, network) is the
// host's word and is bounded, parsed strictly and proven before use. There is
// one way through; whatever goes wrong ends in power off.
package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

// bootTimeout bounds everything up to the start of the workload, but for the
// wait for a server, which the owner bounds. A host that stalls a port or a disk
// gets a dead guest, not a waiting one.
const bootTimeout = 5 * time.Minute

var errBootTimeout = fmt.Errorf("the boot took longer than %s", bootTimeout)

// A boot is one life of the guest. Its fields are filled by the steps in
// order; each step may rely on those before it.
type boot struct {
	console *console
	options options

	identity       *krun.Identity
	identityDigest kbs.Digest

	control *control
	signals chan unix.Signal // admitted from the host, for the workload
	// stopSignal is the image's; 0 before that is known.
	stopSignal atomic.Int32
	network    *network // nil when the kernel has TSI or no network

	disk      *disk
	asking    *asking
	clock     *clock
	diskKey   secret.Bytes
	volumeKey *luks.VolumeKey // nil when diskKey opened no keyslot
	// processKey proves the process configuration; it follows from the volume key.
	processKey secret.Bytes
	// logSeed signs the key of a sealed log, logKey is what it made, and log is
	// the log; nil: the output is not sealed.
	logSeed secret.Bytes
	logKey  *keptLog
	log     *sealed
	detail  string // of what went wrong, for the sealed log alone
	opened
	config *kbs.WorkloadConfig // nil: the image takes none
	// secretRules are the secrets of this launch: the image's, and what was asked for.
	secretRules []krun.SecretRule
	// secretEnv are secrets for variables; nil: none were asked for.
	secretEnv map[string]string
	// renewalKey is private, of renewal: the running workload's right to secrets.
	renewalKey []byte
	renewal    *kbs.Renewal     // nil: it has none
	refreshed  chan unix.Signal // for the workload, when they were
	volumes    []*openVolume
	service    []*os.File // the sockets of the workload's service
	// closing is called before the disk is closed, and what it returns afterwards.
	closing func() (afterwards func())
	process *krun.Process

	at          atomic.Value // string: the step under way
	started     func()       // ends the watch over the boot
	powerOff    func()       // nil: this is no VM
	workloadRan bool

	find func(context.Context, kbs.TEE) (Attester, error)
	stop context.CancelCauseFunc
	// limit is of bootTimeout.
	limit *limit
}

// A step is one entry of the boot table.
type step struct {
	name string
	run  func(*boot, context.Context) error
}

// String names the step as an error does: a gerund and its object.
func (s step) String() string { return s.name }

// earlySteps, diskSteps and lateSteps are the boot up to the workload, in order.
func earlySteps() []step {
	return []step{
		{"mounting kernel file systems", (*boot).mountKernel},
		{"reading the kernel command line", (*boot).readCommandLine},
		{"loading kernel modules", (*boot).loadModules},
		{"reading the identity", (*boot).readIdentity},
		{"looking for the host's ACPI", (*boot).refuseACPI},
		{"opening the control port", (*boot).openControl},
		{"setting up the network", (*boot).setUpNetwork},
	}
}

// awaitingKeeper is PID 1's step instead of diskSteps.
const awaitingKeeper = "waiting for the keeper"

// diskSteps know the DiskKey, or what follows from it: they are the keeper's.
func diskSteps() []step {
	return []step{
		{"looking for the processor's random numbers", (*boot).wantRandom},
		{"finding the disk", (*boot).findDisk},
		{"loading the image's modules", (*boot).loadImageModules},
		{"obtaining the disk key", (*boot).obtainKey},
		{"unlocking the disk", (*boot).unlockDisk},
		{"making the log's key", told((*boot).makeLogKey)},
		{"fetching the configuration", (*boot).fetchConfig},
		{"getting the right to renew", told((*boot).fetchRenewal)},
		{"confirming the release", told((*boot).confirmRelease)},
		{"mounting the disk", (*boot).mountDisk},
		{"reading the process configuration", (*boot).readProcess},
	}
}

func lateSteps() []step {
	return []step{
		{"cutting the network off", told((*boot).cutNetwork)},
		{"locking down the kernel", told((*boot).lockDown)},
	}
}

// told is for a step after the disk was opened whose errors are not about what
// is on it, so that the host may read them. Of others it gets a class.
func told(run func(*boot, context.Context) error) func(*boot, context.Context) error {
	return func(b *boot, ctx context.Context) error { return openly(run(b, ctx)) }
}

// live boots and runs the workload. A panic is a failed boot: fail closed,
// with an exit status, instead of a kernel panic without one.
func (b *boot) live(steps []step) (status int) {
	defer func() {
		if recover() != nil {
			b.console.line(panicLine(fmt.Sprint(b.at.Load())))
			status = statusBootFailed
		}
	}()
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	b.stop, b.limit = stop, newLimit(bootTimeout, func() { stop(errBootTimeout) })
	defer b.limit.stop()
	b.started = watch(ctx, b.spawn, b.abandon)
	defer b.started()
	if err := b.runSteps(ctx, steps); err != nil {
		return b.failed(err)
	}
	b.at.Store("running the workload")
	status, err := b.runWorkload(ctx)
	if err != nil {
		return b.failed(fmt.Errorf("starting the workload: %w", b.forHost(ctx, err)))
	}
	return status
}

func (b *boot) runSteps(ctx context.Context, steps []step) error {
	for _, s := range steps {
		b.at.Store(s.String())
		if err := context.Cause(ctx); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
		if err := s.run(b, ctx); err != nil {
			err = b.forHost(ctx, err)
			if s.name == awaitingKeeper && context.Cause(ctx) == nil { // who named its own step
				return err
			}
			return fmt.Errorf("%s: %w", s, err)
		}
		b.console.timing(s.String())
	}
	return nil
}

// forHost is what may be said of err. Once ctx has ended, err is only how a
// step noticed that.
func (b *boot) forHost(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return cause
	case b.mapped == "": // nothing of the disk is known yet
		return err
	}
	return discreet(err)
}

func (b *boot) failed(err error) int {
	b.console.fail(err)
	b.detail = withDetail(err)
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}
	return statusBootFailed
}

// spawn is the boot's guard: a panic anywhere ends the VM, in a fixed line.
func (b *boot) spawn(what string, run func()) {
	go func() {
		defer func() {
			if recover() != nil {
				b.console.line(panicLine(what))
				b.shutDown(statusBootFailed)
			}
		}()
		run()
	}()
}
