package guest

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Enter is the whole of an agent's main: this program is PID 1 of a VM, its
// keeper, the workload's service, or the stage between agent and workload, and
// nothing else. find opens the TEE's
// report device: FindAttester, but for a test rig without a TEE. It returns
// only if there was nothing to do.
func Enter(find func(context.Context, kbs.TEE) (Attester, error)) {
	role := ""
	if len(os.Args) > 0 {
		role = os.Args[0]
	}
	stage, keeper, service, first := role == StageName, role == keeperName, role == serviceName, os.Getpid() == 1
	if !stage && !keeper && !service && !first {
		fmt.Fprintln(os.Stderr, "ccrun-init: runs only as PID 1 of a confidential VM, from the initrd that `ccrun build` makes")
		return
	}
	// First of all: from here on a death is a silent one.
	voice, err := silence()
	if err == nil {
		err = withoutEnvironment()
	}
	switch {
	case stage:
		runStage(err)
	case service:
		runService(find, err)
	case keeper:
		runKeeper(find, voice, err, keeperSteps())
	default:
		live(find, voice, err)
	}
}

// live is the life of PID 1. It always ends by powering the VM off, so it never
// returns. early is what went wrong before.
func live(find func(context.Context, kbs.TEE) (Attester, error), voice *os.File, early error) {
	unix.Umask(0o022)
	b := &boot{console: newConsole(voice), find: find, signals: make(chan unix.Signal, 16), powerOff: powerOff}
	status := statusBootFailed
	if early != nil {
		b.console.fail(early)
	} else {
		status = b.live(stepsWithKeeper())
	}
	b.shutDown(status)
	for { // the machine is going down
		time.Sleep(time.Hour)
	}
}
