// Command ccrun-init is the guest agent: PID 1 of a confidential VM. It is
// static, has no flags, and everything it does is decided by the measured
// initrd and kernel command line.
package main

import (
	"fmt"
	"os"

	"github.com/ccrun/ccrun/krun/guest"
)

func main() {
	// The kernel passes what it does not understand of its command line as
	// environment; nothing here listens to any.
	os.Clearenv()
	switch {
	case len(os.Args) > 0 && os.Args[0] == guest.StageName:
		guest.RunStage()
	case os.Getpid() == 1:
		guest.Main(guest.FindAttester)
	default:
		fmt.Fprintln(os.Stderr, "ccrun-init: runs only as PID 1 of a confidential VM, from the initrd that `ccrun build` makes")
	}
	os.Exit(1)
}
