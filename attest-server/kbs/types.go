// Package kbs is the wire: the types, digests and framings that the guest
// agent, the owner's tool and the attestation server agree on. It knows
// neither how Evidence is judged nor how keys are stored.
package kbs

import (
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
)

// TEE names a kind of trusted execution environment.
type TEE string

// The TEEs that Evidence can come from. Sample is a simulation: no production
// binary trusts it.
const (
	SNP    TEE = "snp"
	TDX    TEE = "tdx"
	Sample TEE = "sample"
)

// Valid says whether t is a TEE this package knows. The zero value is not.
func (t TEE) Valid() bool { return t == SNP || t == TDX || t == Sample }

// Digest is a SHA-384 digest. In JSON it is 96 lower-case hex digits; the
// zero digest is refused in both directions, because it means "nothing".
type Digest [48]byte

// LaunchDigest is what a TEE measured at launch: an SNP report's MEASUREMENT
// or a TD's MRTD. Same form in JSON as Digest.
type LaunchDigest [48]byte

// ReportData is the 64 bytes of a guest's choice that a TEE signs.
type ReportData [64]byte

// IsZero says whether d was never set. Zero report data binds nothing.
func (d ReportData) IsZero() bool { return d == ReportData{} }

func (d ReportData) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler: 128 hex digits.
func (d ReportData) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler. Zero is let through, for
// claims must show what is there: whoever compares it must refuse zero.
func (d *ReportData) UnmarshalText(b []byte) error {
	if len(b) != 2*len(d) {
		return fmt.Errorf("report data has %d hex digits, expected %d", len(b), 2*len(d))
	}
	_, err := hex.Decode(d[:], b)
	return err
}

// ErrZeroDigest reports a digest of 48 zero bytes, which matches nothing.
var ErrZeroDigest = errors.New("digest is all zero")

// Sum384 is SHA-384 of b.
func Sum384(b []byte) Digest { return sha512.Sum384(b) }

// IsZero says whether d was never set.
func (d Digest) IsZero() bool { return d == Digest{} }

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return marshalHex48(d) }

// UnmarshalText implements encoding.TextUnmarshaler, strictly.
func (d *Digest) UnmarshalText(b []byte) error { return unmarshalHex48((*[48]byte)(d), b) }

// IsZero says whether d was never set.
func (d LaunchDigest) IsZero() bool { return d == LaunchDigest{} }

func (d LaunchDigest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d LaunchDigest) MarshalText() ([]byte, error) { return marshalHex48(d) }

// UnmarshalText implements encoding.TextUnmarshaler, strictly.
func (d *LaunchDigest) UnmarshalText(b []byte) error { return unmarshalHex48((*[48]byte)(d), b) }

func marshalHex48(d [48]byte) ([]byte, error) {
	if d == [48]byte{} {
		return nil, ErrZeroDigest
	}
	return hex.AppendEncode(nil, d[:]), nil
}

func unmarshalHex48(d *[48]byte, b []byte) error {
	if len(b) != 96 {
		return fmt.Errorf("digest has %d hex digits, expected 96", len(b))
	}
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return fmt.Errorf("digest has %q, expected lower-case hex", c)
		}
	}
	if _, err := hex.Decode(d[:], b); err != nil {
		return err
	}
	if *d == [48]byte{} {
		return ErrZeroDigest
	}
	return nil
}
