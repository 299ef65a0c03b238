package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
)

// keeperName is argv[0] of this program as the keeper: the process that gets
// the DiskKey and opens the disk with it. Go copies what it computes with, and
// forgets copies without wiping them, so what was in its memory cannot be
// wiped from within. PID 1 never has the key, and overwrites the whole memory
// of the keeper once that is done (wipeProcess), before it lets anything else
// run. What is left is the kernel's: the volume key, in dm-crypt.
const keeperName = "ccrun-init-keeper"

// stepsWithKeeper is the boot as PID 1 takes it.
func stepsWithKeeper() []step {
	return slices.Concat(earlySteps(), []step{{awaitingKeeper, (*boot).openByKeeper}}, withService(lateSteps()))
}

// keeperSteps are the keeper's, after what it must read for itself.
func keeperSteps() []step {
	return append([]step{
		{"reading the kernel command line", (*boot).readCommandLine},
		{"reading the identity", (*boot).readIdentity},
	}, withSecrets(withVolumes(diskSteps()))...)
}

// kept is what the keeper's steps leave to PID 1. It holds no secret but the
// workload's configuration, variables that are secrets, the key of what it prints,
// and what closes its volumes and gets its secrets anew.
type kept struct {
	Mapped   string
	Devices  []string
	Mounts   []string
	ReadOnly bool
	Process  *krun.Process
	Log      *keptLog          `json:",omitempty"`
	Volumes  []*openVolume     `json:",omitempty"`
	Renewal  *kbs.Renewal      `json:",omitempty"`
	Secrets  []krun.SecretRule `json:",omitempty"`
	Failure  *failure          `json:",omitempty"`
}

// A failure is an error that the host may be told as it is (forHost), but for
// its detail.
type failure struct {
	Status     int
	Text, Hint string
	Detail     string `json:",omitempty"`
}

// openByKeeper has the keeper open the disk, and then overwrites its memory.
func (b *boot) openByKeeper(ctx context.Context) error {
	pid, result, err := b.startKeeper()
	if err != nil {
		return fmt.Errorf("starting the keeper: %w", err)
	}
	resume := b.limit.suspend() // which the keeper has for its own
	k, err := awaitKeeper(ctx, result)
	resume()
	if f := k.Failure; err == nil && f != nil {
		if k.Log != nil {
			_ = b.openLog(k.Log) // for what its readers are to know, and the host is not
		}
		told := hint.With(errors.New(f.Text), "%s", f.Hint)
		err = &statusError{f.Status, openly(&discreetError{told, f.Detail})}
	}
	if err != nil { // the VM ends; to stop it could take as long as the host likes
		_ = unix.Kill(pid, unix.SIGKILL)
		return err
	}
	if err := wipeProcess(pid); err != nil {
		return fmt.Errorf("wiping the keeper's memory: %w", err)
	}
	b.opened = opened{mapped: k.Mapped, devices: k.Devices, mounts: k.Mounts, readOnly: k.ReadOnly, say: b.console.line}
	b.process, b.volumes, b.closing = k.Process, k.Volumes, b.closeVolumes
	b.renewal, b.secretRules = k.Renewal, k.Secrets
	if b.mapped == "" || b.process == nil {
		return errors.New("the keeper opened nothing, and does not say why")
	}
	return openly(b.openLog(k.Log))
}

func (b *boot) startKeeper() (pid int, result *os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = null.Close() }()
	resultR, resultW, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resultW.Close() }()
	voice := int(null.Fd())
	if f, ok := b.console.w.(*os.File); ok {
		if voice, err = duplicate(f); err != nil {
			return 0, nil, errors.Join(err, resultR.Close())
		}
		defer func() { _ = unix.Close(voice) }()
	}
	pid, err = syscall.ForkExec("/proc/self/exe", []string{keeperName, b.limit.left().String()}, &syscall.ProcAttr{
		Files: []uintptr{null.Fd(), null.Fd(), uintptr(voice), resultW.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, errors.Join(err, resultR.Close())
	}
	return pid, resultR, nil
}

// duplicate is f once more. File.Fd would have the console wait for the host.
func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	failed := raw.Control(func(of uintptr) { fd, err = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 3) })
	return fd, errors.Join(failed, err)
}

// awaitKeeper reads what the keeper says, once. It says it when it has ended
// with everything.
func awaitKeeper(ctx context.Context, result *os.File) (k kept, err error) {
	stop := context.AfterFunc(ctx, func() { _ = result.Close() })
	defer func() {
		if stop() {
			_ = result.Close()
		}
	}()
	raw, err := bounded.Read(result, "the keeper's answer", 4*process.MaxBytes)
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return k, cause
	case err != nil:
		return k, err
	case len(raw) == 0:
		return k, errors.New("the keeper ended without a word: the guest is out of memory, or its program is broken")
	}
	return k, kbs.UnmarshalStrict(raw, &k)
}

// runKeeper is the keeper. It never returns: PID 1 ends it when its memory is
// overwritten. early is what went wrong before.
func runKeeper(find func(context.Context, kbs.TEE) (Attester, error), voice *os.File, early error, steps []step) {
	unix.CloseOnExec(specFD)
	b := &boot{console: newConsole(voice), find: find, signals: make(chan unix.Signal, 16)}
	answer := keeperAnswer{result: os.NewFile(specFD, "result")}
	err := early
	if err == nil {
		err = b.keep(os.Args, steps, func(err error) { answer.fail(err, nil) })
	}
	if err != nil {
		within(closeTimeout, b.closeDisk, func() {})
		if b.logKey == nil && b.logSeed.Len() > 0 {
			_ = b.makeLogKey(context.Background())
		}
		answer.fail(err, b.logKey)
	}
	answer.say(kept{Mapped: b.mapped, Devices: b.devices, Mounts: b.mounts, ReadOnly: b.readOnly, Process: b.process, Log: b.logKey, Volumes: b.volumes, Renewal: b.renewal, Secrets: b.secretRules})
	for {
		_ = unix.Pause()
	}
}

// openLog begins the log, if it is to be sealed.
func (b *boot) openLog(k *keptLog) (err error) {
	b.log, err = openSealed(b.identity.Policy.Logs, k, b.console, b.spawn)
	return err
}

// keeperAnswer is said once.
type keeperAnswer struct {
	once   sync.Once
	result *os.File
}

func (a *keeperAnswer) say(k kept) {
	a.once.Do(func() {
		_ = json.NewEncoder(a.result).Encode(k)
		_ = a.result.Close()
	})
}

func (a *keeperAnswer) fail(err error, log *keptLog) {
	f := &failure{Status: statusBootFailed, Text: err.Error(), Hint: hint.Of(err)}
	if s := (*statusError)(nil); errors.As(err, &s) {
		f.Status = s.status
	}
	if d := (*discreetError)(nil); log != nil && errors.As(err, &d) {
		f.Detail = cut(d.detail)
	}
	a.say(kept{Failure: f, Log: log})
}

// keep is the keeper's work. stuck is called if that goes on after its time.
func (b *boot) keep(args []string, steps []step, stuck func(error)) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New(panicLine(fmt.Sprint(b.at.Load())))
		}
	}()
	if len(args) != 2 {
		return fmt.Errorf("keeper with %d arguments, expected 2", len(args))
	}
	left, err := time.ParseDuration(args[1])
	if err != nil {
		return fmt.Errorf("keeper's time: %w", err)
	}
	ctx, stop := context.WithCancelCause(context.Background())
	defer stop(nil)
	b.stop, b.limit = stop, newLimit(left, func() { stop(errBootTimeout) })
	defer b.limit.stop()
	apart := func(_ string, run func()) { go run() }
	defer watch(ctx, apart, func(cause error) { stuck(fmt.Errorf("%s: %w", b.at.Load(), cause)) })()
	return b.runSteps(ctx, steps)
}
