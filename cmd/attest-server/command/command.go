package command

import (
	"github.com/urfave/cli/v2"
)

// Commands is init, serve, token, audit, certs and the rest.
func (p Program) Commands() []*cli.Command {
	return []*cli.Command{p.initCommand(), p.serveCommand(), p.tokenCommand(), p.tenantCommand(), p.policyCommand(), p.advisoriesCommand(), p.machinesCommand(), p.backupCommand(), p.restoreCommand(), p.masterKeyCommand(), p.auditCommand(), p.witnessCommand(), p.certsCommand(), p.moveCommand(), p.limitsCommand()}
}

// App is Commands as a program of its own.
func (p Program) App() *cli.App {
	app := &cli.App{
		Usage:       "release disk keys to attested workloads, and to nobody else",
		Description: "Example:\n   " + p.Name + " init --data /var/lib/attest-server --name keys.example.com\n   " + p.Name + " serve --data /var/lib/attest-server --listen :8443",
		Commands:    p.Commands(),
	}
	p.Prepare(app)
	return app
}

// Main is the main function of App: it returns the exit status.
func (p Program) Main(args []string) int { return p.Program.Main(p.App(), args) }
