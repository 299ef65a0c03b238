package referrers

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
)

// envelope is a DSSE envelope (version 1.0.2 of its specification).
type envelope struct {
	PayloadType string          `json:"payloadType"`
	Payload     []byte          `json:"payload"`
	Signatures  []dsseSignature `json:"signatures"`
}

type dsseSignature struct {
	KeyID string `json:"keyid,omitempty"`
	Sig   []byte `json:"sig"`
}

// dsseMessage is what is signed: the type as well as the payload, so that a
// signature over one kind of document does not serve for another.
func dsseMessage(payloadType string, payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}

// OpenEnvelope returns the payload if the key has signed it as payloadType.
func OpenEnvelope(b []byte, payloadType string, publicKey crypto.PublicKey) ([]byte, error) {
	var e envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("reading DSSE envelope: %w", err)
	}
	if e.PayloadType != payloadType || len(e.Signatures) == 0 || len(e.Signatures) > 16 {
		return nil, fmt.Errorf("DSSE envelope of %.60q with %d signatures", e.PayloadType, len(e.Signatures))
	}
	message := dsseMessage(e.PayloadType, e.Payload)
	for _, s := range e.Signatures {
		if signedBy(publicKey, message, s.Sig) {
			return e.Payload, nil
		}
	}
	return nil, errors.New("not signed by the key given")
}

// EnvelopePayload is what an envelope holds, whoever has signed it.
func EnvelopePayload(b []byte) ([]byte, error) {
	var e envelope
	err := json.Unmarshal(b, &e)
	return e.Payload, err
}

func signedBy(publicKey crypto.PublicKey, message, sig []byte) bool {
	sum := sha256.Sum256(message)
	switch k := publicKey.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sum[:], sig)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, sig)
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil
	}
	return false
}
