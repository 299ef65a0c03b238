// Command ccrun-init is the guest agent: PID 1 of a confidential VM. It is
// static, has no flags, and everything it does is decided by the measured
// initrd and kernel command line.
package main

import (
	"os"

	"github.com/ccrun/ccrun/krun/guest"
)

func main() {
	guest.Enter(guest.FindAttester)
	os.Exit(1)
}
