// Command init is the guest agent for the rig: cmd/ccrun-init, but its Evidence
// of an SNP guest comes from the simulated TEE's port.
package main

import (
	"os"

	"github.com/ccrun/ccrun/krun/guest"
)

func main() {
	os.Clearenv()
	switch {
	case len(os.Args) > 0 && os.Args[0] == guest.StageName:
		guest.RunStage()
	case os.Getpid() == 1:
		guest.Main(guest.OpenReportPort)
	}
	os.Exit(1)
}
