// Command dyinginit is PID 1 of a VM for one test: it dies, which makes the
// kernel panic, after it has silenced the kernel as the agent does, or without.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun/guest"
)

func main() {
	for path, fstype := range map[string]string{"/proc": "proc", "/sys": "sysfs"} {
		if err := unix.Mount(fstype, path, fstype, 0, ""); err != nil {
			fmt.Println("mounting:", err)
		}
	}
	if len(os.Args) > 1 && os.Args[1] == "silent" {
		fmt.Println("silencing the kernel:", guest.SilenceKernel())
	}
	fmt.Println("dying now")
	os.Exit(3)
}
