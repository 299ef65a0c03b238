// Package recipient encrypts what is released to the key that a guest had
// attested, in the form that its dialect has for it.
package recipient

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"
)

// Recipient is a guest's attested key. Seal makes the whole body of an answer.
type Recipient interface {
	Seal(rand io.Reader, plain []byte) ([]byte, error)
}

// Encode is what decodes to r again.
func Encode(r Recipient) (kind string, public []byte, err error) {
	var k any
	switch r := r.(type) {
	case EC:
		kind, k = "ec "+r.Curve, r.Public
	case RSA:
		kind, k = "rsa", r.Public
	case Legacy:
		kind, k = "legacy", r.Public
	default:
		return "", nil, fmt.Errorf("encoding a recipient that is a %T", r)
	}
	if public, err = x509.MarshalPKIXPublicKey(k); err != nil {
		return "", nil, fmt.Errorf("encoding the guest's key: %w", err)
	}
	return kind, public, nil
}

// Decode takes what Encode made.
func Decode(kind string, pkix []byte) (Recipient, error) {
	public, err := x509.ParsePKIXPublicKey(pkix)
	if err != nil {
		return nil, err
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		e, err := k.ECDH()
		if name := k.Curve.Params().Name; err == nil && kind == "ec "+name {
			return EC{Public: e, Curve: name}, nil
		}
	case *rsa.PublicKey:
		switch kind {
		case "rsa":
			return RSA{k}, nil
		case "legacy":
			return Legacy{k}, nil
		}
	}
	return nil, fmt.Errorf("a key of kind %q that is a %T", kind, public)
}
