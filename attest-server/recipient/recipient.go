// Package recipient encrypts what is released to the key that a guest had
// attested, in the form that its dialect has for it.
package recipient

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Recipient is a guest's attested key. Seal makes the whole body of an answer.
type Recipient interface {
	Seal(rand io.Reader, item Item) ([]byte, error)
}

// Item is what is released. Only the native form ties it to its name and
// session, and tells the time.
type Item struct {
	Plain      []byte
	Name       string         // kbs.ReleaseName and the like
	ReportData kbs.ReportData // of the session
	At         time.Time
}

// Form is a recipient as it is stored: KEM and TEEKey of the native kind, the
// rest of others.
type Form struct {
	KEM    uint16 `json:"kem,omitempty"`
	TEEKey []byte `json:"tee_key,omitempty"`
	Kind   string `json:"recipient,omitempty"`
	Public []byte `json:"public,omitempty"` // PKIX
}

// Encode is what decodes to r again.
func Encode(r Recipient) (Form, error) {
	var kind string
	var public any
	switch r := r.(type) {
	case Native:
		return Form{KEM: r.Key.KEM().ID(), TEEKey: r.Key.Bytes()}, nil
	case EC:
		kind, public = "ec "+r.Curve, r.Public
	case RSA:
		kind, public = "rsa", r.Public
	case Legacy:
		kind, public = "legacy", r.Public
	default:
		return Form{}, fmt.Errorf("encoding a recipient that is a %T", r)
	}
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Form{}, fmt.Errorf("encoding the guest's key: %w", err)
	}
	return Form{Kind: kind, Public: pkix}, nil
}

// Decode takes what Encode made.
func (f Form) Decode() (Recipient, error) {
	if f.Kind == "" {
		if r := ParseTEEKey(kbs.TEEKey{KEM: f.KEM, Public: f.TEEKey}); r != nil {
			return r, nil
		}
		return nil, errors.New("a key that is not accepted")
	}
	public, err := x509.ParsePKIXPublicKey(f.Public)
	if err != nil {
		return nil, err
	}
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		e, err := k.ECDH()
		if name := k.Curve.Params().Name; err == nil && f.Kind == "ec "+name {
			return EC{Public: e, Curve: name}, nil
		}
	case *rsa.PublicKey:
		switch f.Kind {
		case "rsa":
			return RSA{k}, nil
		case "legacy":
			return Legacy{k}, nil
		}
	}
	return nil, fmt.Errorf("a key of kind %q that is a %T", f.Kind, public)
}
