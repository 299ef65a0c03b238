// Package command is the command line of attest-server, shared with the
// simulation, which differs in the verifiers it adds.
package command

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/cmd/face"
)

// Program is what differs between attest-server and its simulation.
type Program struct {
	Name   string // e.g. "attest-server", or "ccrun-sim attest-server"
	Notice string // put into every help text and before every log line; may be empty
	// ServeFlags are further flags of serve, for Verifiers.
	ServeFlags []cli.Flag
	// Verifiers makes the verifiers to serve with; most start from Production.
	Verifiers func(*cli.Context, Endorsements) (map[kbs.TEE]verifier.Verifier, error)
}

// Endorsements is what the operator configured for verifiers.
type Endorsements struct {
	Supply     *verifier.Supply // never nil
	RequireCRL bool
}

// Production is the verifiers for real hardware: vendors' roots only.
func Production(e Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
	snp, err := verifier.NewSNP(verifier.SNPOptions{Endorsements: e.Supply, RequireCRL: e.RequireCRL})
	if err == nil {
		err = e.Supply.Watch(snp)
	}
	if err != nil {
		return nil, fmt.Errorf("setting up SNP verification: %w", err)
	}
	tdx, err := verifier.NewTDX(verifier.TDXOptions{Collateral: e.Supply})
	if err != nil {
		return nil, fmt.Errorf("setting up TDX verification: %w", err)
	}
	return map[kbs.TEE]verifier.Verifier{kbs.SNP: snp, kbs.TDX: tdx}, nil
}

// Commands is init, serve, token, audit, certs and the rest.
func (p Program) Commands() []*cli.Command {
	return []*cli.Command{p.initCommand(), p.serveCommand(), p.tokenCommand(), p.tenantCommand(), p.policyCommand(), p.backupCommand(), p.restoreCommand(), p.masterKeyCommand(), p.auditCommand(), p.certsCommand()}
}

func (p Program) face() face.Program { return face.Program{Name: p.Name, Notice: p.Notice} }

// App is Commands as a program of its own.
func (p Program) App() *cli.App {
	app := &cli.App{
		Usage:       "release disk keys to attested workloads, and to nobody else",
		Description: "Example:\n   " + p.Name + " init --data /var/lib/attest-server --name keys.example.com\n   " + p.Name + " serve --data /var/lib/attest-server --listen :8443",
		Commands:    p.Commands(),
	}
	p.face().Prepare(app)
	return app
}

// Main is the main function of App: it returns the exit status.
func (p Program) Main(args []string) int { return p.face().Main(p.App(), args) }

// The data directory's files.
const (
	storeName     = "store.db"
	caName        = "ca.pem"
	caKeyName     = "ca.key"
	serverName    = "server.pem"
	serverKeyName = "server.key"
)

func dataFlag() cli.Flag {
	return &cli.StringFlag{Name: "data", Value: "/var/lib/attest-server", Usage: "`DIR` with store, master key and TLS identity"}
}

func inDir(dir, name string) string { return filepath.Join(dir, name) }
