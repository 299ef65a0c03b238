// Command ccrun-init is the guest agent: PID 1 of a confidential VM. It is
// static, has no flags, and everything it does is decided by the measured
// initrd and kernel command line.
package main

import (
	"os"
	"runtime/debug"

	"github.com/ccrun/ccrun/krun/guest"
)

func main() {
	if os.Getpid() != 1 && len(os.Args) == 2 && os.Args[1] == "--version" {
		printVersion()
		return
	}
	guest.Enter(guest.FindAttester)
	os.Exit(1)
}

// printVersion is for whoever packages the agent: PID 1 never comes here.
func printVersion() {
	version := "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	os.Stdout.WriteString("ccrun-init version " + version + "\n")
}
