// Command init is the guest agent for the rig: cmd/ccrun-init, but its Evidence
// of an SNP guest comes from the simulated TEE's port.
package main

import (
	"os"

	"github.com/ccrun/ccrun/krun/guest"
)

func main() {
	guest.Enter(guest.OpenReportPort)
	os.Exit(1)
}
