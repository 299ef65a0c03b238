// Package command is the command line of attest-server, shared with the
// simulation, which differs in the verifiers it adds.
package command

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/cmd/face"
)

// Program is what differs between attest-server and its simulation.
type Program struct {
	face.Program // Name is "attest-server", or "ccrun-sim attest-server"
	// ServeFlags are further flags of serve, for Verifiers.
	ServeFlags []cli.Flag
	// Verifiers makes the verifiers to serve with; most start from Production.
	Verifiers func(*cli.Context, Endorsements) (map[kbs.TEE]verifier.Verifier, error)
}

// Endorsements is what the operator configured for verifiers.
type Endorsements struct {
	Supply     *endorsements.Supply // never nil
	RequireCRL bool
}

// Production is the verifiers for real hardware: vendors' roots only.
func Production(e Endorsements) (map[kbs.TEE]verifier.Verifier, error) {
	snp, err := snp.New(snp.Options{Endorsements: e.Supply, RequireCRL: e.RequireCRL})
	if err == nil {
		err = e.Supply.Watch(snp)
	}
	if err != nil {
		return nil, fmt.Errorf("setting up SNP verification: %w", err)
	}
	tdx, err := tdx.New(tdx.Options{Collateral: e.Supply})
	if err != nil {
		return nil, fmt.Errorf("setting up TDX verification: %w", err)
	}
	return map[kbs.TEE]verifier.Verifier{kbs.SNP: snp, kbs.TDX: tdx}, nil
}
