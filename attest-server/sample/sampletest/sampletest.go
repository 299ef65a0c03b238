// Package sampletest makes simulated platforms for tests: without the seconds
// that RSA keys of 4096 bits take to make.
package sampletest

import (
	"crypto/rsa"
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/sample"
)

// keysPEM is the private keys of an ARK and an ASK that nobody trusts, made with
// `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:4096`.
//
//go:embed keys.pem
var keysPEM []byte

// Create is sample.Create, with the same ARK and ASK key each time.
func Create(dir string, now time.Time) error {
	ark, rest, err := readKey(keysPEM)
	if err != nil {
		return err
	}
	ask, _, err := readKey(rest)
	if err != nil {
		return err
	}
	return sample.CreateWith(dir, now, ark, ask)
}

func readKey(text []byte) (k *rsa.PrivateKey, rest []byte, err error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, nil, errors.New("reading test keys: no PEM block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("reading test keys: %w", err)
	}
	k, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("reading test keys: a %T", parsed)
	}
	return k, rest, nil
}
