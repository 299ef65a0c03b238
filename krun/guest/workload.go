package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
)

// maxHostname is HOST_NAME_MAX less one, what RFC 1123 allows for a label.
const maxHostname = 63

// runWorkload starts the workload in namespaces of its own, forwards signals
// to it, reaps, and returns its exit status.
func (b *boot) runWorkload(ctx context.Context) (int, error) {
	stopSignal, err := process.ParseStopSignal(b.process.StopSignal)
	if err != nil {
		return 0, classed(classConfiguration, err)
	}
	b.stopSignal.Store(int32(stopSignal))
	out, err := b.openOutput()
	if err != nil {
		return 0, openly(fmt.Errorf("setting up the workload's output: %w", err))
	}
	pid, result, err := b.startStage(out)
	out.closeWriters()
	if err != nil {
		return 0, err
	}
	exited := b.reap(pid)
	if err := awaitExec(ctx, result); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		<-exited
		out.wait()
		return 0, err
	}
	b.workloadRan = true
	b.started()
	b.console.timing(fmt.Sprintf("workload started, the agent has %d KiB of memory", residentKiB()))
	b.sayReady()
	stop := b.refreshSecrets()
	status := b.supervise(pid, exited)
	stop()
	out.wait()
	b.console.timing("workload exited")
	return status, nil
}

// refreshSecrets keeps the running workload's secrets as the key server has them.
func (b *boot) refreshSecrets() (stop func()) {
	policy := &b.identity.Policy
	if policy.SecretRefresh == nil || b.renewal == nil || len(b.secretRules) == 0 {
		return func() {}
	}
	ctx, stop := context.WithCancel(context.Background())
	b.refreshed = make(chan unix.Signal, 1)
	s := b.identity.Servers
	renewer := &kbs.Renewer{Client: &kbs.Client{URLs: s.URLs, PinnedKeys: s.PinnedKeys}, Workload: b.identity.WorkloadID, Renewal: b.renewal}
	r := &refresher{
		get: renewer.Secrets, rules: b.secretRules, root: secretsMount, every: policy.SecretRefresh.Every(), sleep: sleepFor,
		note:     b.log.note,
		complain: func(text string) { b.console.line(text); b.log.note(text) },
		changed: func() {
			if sig := unix.Signal(policy.SecretRefresh.Number()); sig != 0 {
				select {
				case b.refreshed <- sig:
				case <-ctx.Done():
				}
			}
		},
	}
	b.spawn("refreshing the secrets", func() { r.run(ctx) })
	return stop
}

// sayReady tells the host that the workload runs: on the control port, or where
// there is none on the console, for whoever waits for it.
func (b *boot) sayReady() {
	if b.control == nil {
		b.console.print("", krun.StartedLine)
		return
	}
	if err := b.control.sayReady(); err != nil {
		b.console.timing(fmt.Sprintf("reporting ready: %v", err))
	}
}

// supervise forwards signals until the workload has exited.
func (b *boot) supervise(pid int, exited <-chan int) int {
	var noted unix.Signal
	for {
		select {
		case status := <-exited:
			return status
		case sig := <-b.refreshed:
			_ = unix.Kill(pid, sig)
		case sig := <-b.signals:
			_ = unix.Kill(pid, sig) // it may have exited just now
			if sig != noted {       // a flood of one is one note
				noted = sig
				// A note waits for a host that does not read; signals do not.
				b.spawn("noting a signal", func() { b.log.note("passed the host's " + unix.SignalName(sig) + " on") })
			}
		}
	}
}

// reap waits for every child, PID 1's duty, and sends pid's exit status when
// it is known: the code, or 128 and the signal.
func (b *boot) reap(pid int) <-chan int {
	exited := make(chan int, 1)
	b.spawn("waiting for the workload", func() {
		for {
			var ws unix.WaitStatus
			got, err := unix.Wait4(-1, &ws, 0, nil)
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil: // no child is left, so pid's status is lost
				exited <- statusBootFailed
				return
			case got == pid && (ws.Exited() || ws.Signaled()):
				exited <- exitStatus(ws)
				return
			}
		}
	})
	return exited
}

func exitStatus(ws unix.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// stageAttributes are a session and namespaces of the stage's own. The network is
// the VM's.
func stageAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
}

// startStage starts this program again as the stage that becomes the
// workload. What it is to do travels over a pipe: argument vectors show.
func (b *boot) startStage(out *output) (pid int, result *os.File, err error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = specR.Close() }()
	resultR, resultW, err := os.Pipe()
	if err != nil {
		return 0, nil, errors.Join(err, specW.Close())
	}
	defer func() { _ = resultW.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, nil, errors.Join(err, specW.Close())
	}
	defer func() { _ = null.Close() }()
	group, err := openDeviceGroup()
	if err != nil {
		return 0, nil, errors.Join(err, specW.Close(), resultR.Close())
	}
	groupFD := -1
	if group != nil {
		defer func() { _ = group.Close() }()
		groupFD = int(group.Fd())
	}
	attributes := stageAttributes()
	attributes.UseCgroupFD, attributes.CgroupFD = group != nil, groupFD
	pid, err = syscall.ForkExec("/proc/self/exe", []string{StageName}, &syscall.ProcAttr{
		// What the stage prints in dying is not the workload's output.
		Files: []uintptr{null.Fd(), null.Fd(), null.Fd(), specR.Fd(), resultW.Fd(), out.stdout.Fd(), out.stderr.Fd()},
		Sys:   attributes,
	})
	if err != nil {
		return 0, nil, errors.Join(err, specW.Close(), resultR.Close())
	}
	b.spawn("telling the stage its part", func() { // the pipe may be smaller than that
		spec := b.stageSpec()
		spec.DeviceGroup = group != nil
		_ = json.NewEncoder(specW).Encode(spec)
		_ = specW.Close()
	})
	return pid, resultR, nil
}

func (b *boot) stageSpec() *stageSpec {
	s := &stageSpec{
		Hostname: hostname(b.identity.WorkloadID),
		ReadOnly: b.readOnly,
		Service:  b.service != nil,
		Process:  *b.process,
		Secrets:  len(b.secretRules) > 0,
		Hosts:    "127.0.0.1 localhost\n::1 localhost\n",
	}
	address := "127.0.1.1"
	if b.network != nil && !b.cutOff() {
		address = b.network.address.Addr().String()
	}
	if !b.cutOff() {
		s.ResolvConf = b.resolvConf()
	}
	s.Hosts += address + " " + s.Hostname + "\n"
	for _, v := range b.identity.Volumes {
		s.Volumes = append(s.Volumes, v.Path)
	}
	return s
}

func hostname(workloadID string) string { return workloadID[:min(len(workloadID), maxHostname)] }

// awaitExec waits until the stage has become the workload (its mark, then end
// of file, by close-on-exec) or has said why it did not.
func awaitExec(ctx context.Context, result *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = result.Close() })
	defer func() {
		if stop() {
			_ = result.Close()
		}
	}()
	raw, err := bounded.Read(result, "the workload stage's answer", 64<<10)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return classed(classInternal, err)
	}
	answer, begins := bytes.CutPrefix(raw, []byte{executing})
	switch {
	case begins && len(answer) == 0:
		return nil
	case len(answer) == 0:
		return classed(classInternal, errors.New("the workload's stage ended without an answer"))
	}
	var e stageError
	if err := kbs.UnmarshalStrict(answer, &e); err != nil {
		return classed(classInternal, fmt.Errorf("reading the workload stage's answer: %w", err))
	}
	return e.error()
}
