// Command ccrun builds, registers, launches and inspects confidential
// workloads. Under the name krun it is the OCI runtime wrapper.
package main

import (
	"os"
	"runtime/debug"

	"github.com/containers/storage/pkg/reexec"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/workload"
)

func main() {
	if reexec.Init() { // containers/storage unpacks layers in a child of ours
		return
	}
	if isRuntime(os.Args[0]) {
		os.Exit(runtimeMain(os.Args))
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(workload.MemoryTargetBytes)
	}
	p := program
	p.Completion = completion()
	os.Exit(p.Main(newApp(), os.Args))
}

func newApp() *cli.App {
	app := &cli.App{
		Usage: "build, register and run confidential workloads with Podman and krun",
		Description: "An owner, on a machine that he trusts; a host that runs it; and the owner again:\n" +
			"   ccrun login https://keys.example.com:8443 --ca ca.pem --token-file token\n" +
			"   ccrun build --workload-id shop SOURCE docker://registry.example.com/shop:1\n" +
			"   ccrun run registry.example.com/shop:1\n" +
			"   ccrun explain SESSION\n\n" +
			"Without SEV-SNP or TDX, `ccrun-sim up` makes all that takes a server and a TEE: docs/tutorial.md.",
		Commands: []*cli.Command{
			buildCommand(), convertCommand(), verifyImageCommand(), measureCommand(), inspectCommand(), registerCommand(),
			workloadCommand(), resourceCommand(), volumeCommand(), runCommand(), psCommand(), topCommand(), logsCommand(), verifyCommand(), sessionCommand(), explainCommand(), auditCommand(), incidentCommand(), monitorCommand(),
			loginCommand(), contextCommand(), certsCommand(), firmwareCommand(), quadletCommand(), doctorCommand(), vmmCommand(),
		},
	}
	program.Prepare(app)
	return app
}
