// Package sample simulates an AMD SEV-SNP platform: it PROTECTS NOTHING. Both
// halves live here. The attester plays the chip's secure processor (PSP): it
// signs byte-exact SNP attestation reports with keys that lie in a directory.
// The verifier accepts reports under that directory's roots as TEE "sample".
//
// Only ccrun-sim may link this package. No production binary knows its roots.
package sample

import "errors"

// Notice is what everything that uses this package says to people.
const Notice = "SIMULATED TEE, protects nothing"

// DefaultRoot is where ccrun-sim keeps its simulated platform.
const DefaultRoot = "/var/lib/ccrun-sim"

// ErrNoRoot reports a directory without a simulated platform in it.
var ErrNoRoot = errors.New("no simulated platform there")

// Places inside a root directory. RootsDir is public and is what a verifier
// reads; ChipDir is what the simulated chip holds and what the VMM container
// sees; PrivateDir holds the keys of the simulated manufacturer.
const (
	RootsDir   = "roots"
	ChipDir    = "chip"
	PrivateDir = "private"
)

const (
	arkFile     = "ark.pem"
	askFile     = "ask.pem"
	vcekFile    = "vcek.pem"
	vcekKeyFile = "vcek-key.pem"
)
