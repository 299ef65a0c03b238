package kbs

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// NonceSize is the length of a nonce in bytes.
const NonceSize = 32

const (
	bindingLabel = "ccrun native v1 report data"
	// renewableLabel begins report data with a RenewalKey, which no server takes
	// for such without one.
	renewableLabel = "ccrun native v1 report data, renewable"
	releaseLabel   = "ccrun native v1 release"
	guestLabel     = "ccrun guest v1 report data"
)

// Binding is the REPORT_DATA that a guest must have signed for rd in a
// session for workloadID: SHA-512 over the label and every member, each
// behind its length (64-bit big endian), so that no two inputs collide by
// moving a boundary. Anything empty is an error.
func Binding(workloadID string, rd RuntimeData) (ReportData, error) {
	switch {
	case workloadID == "":
		return ReportData{}, errors.New("binding report data: no workload id")
	case len(rd.Nonce) != NonceSize:
		return ReportData{}, fmt.Errorf("binding report data: nonce of %d bytes, expected %d", len(rd.Nonce), NonceSize)
	case rd.TEEKey.KEM == 0 || len(rd.TEEKey.Public) == 0:
		return ReportData{}, errors.New("binding report data: no TEE key")
	case rd.IdentityDigest.IsZero() || rd.FooterDigest.IsZero():
		return ReportData{}, errors.New("binding report data: no identity or footer digest")
	}
	label := bindingLabel
	if k := rd.RenewalKey; k != nil {
		if k.KEM == 0 || len(k.Public) == 0 {
			return ReportData{}, errors.New("binding report data: an empty renewal key")
		}
		label = renewableLabel
	}
	h := sha512.New()
	frame(h, []byte(label))
	frame(h, []byte(workloadID))
	frame(h, rd.Nonce)
	frame(h, binary.BigEndian.AppendUint16(nil, rd.TEEKey.KEM))
	frame(h, rd.TEEKey.Public)
	frame(h, rd.IdentityDigest[:])
	frame(h, rd.FooterDigest[:])
	frameRenewal(h, rd.RenewalKey)
	return ReportData(h.Sum(nil)), nil
}

// frameRenewal adds k, which follows all other members, under a label of its own.
func frameRenewal(h hash.Hash, k *TEEKey) {
	if k != nil {
		frame(h, binary.BigEndian.AppendUint16(nil, k.KEM))
		frame(h, k.Public)
	}
}

// GuestBinding is the REPORT_DATA of Evidence that a workload asks for, over data
// of its own: of a label that no session has, so that no server releases anything
// for it, whatever data is.
func GuestBinding(workloadID string, data []byte) (ReportData, error) {
	if workloadID == "" {
		return ReportData{}, errors.New("binding report data: no workload id")
	}
	h := sha512.New()
	frame(h, []byte(guestLabel))
	frame(h, []byte(workloadID))
	frame(h, data)
	return ReportData(h.Sum(nil)), nil
}

// ReleaseInfo is the HPKE info string under which a secret is sealed: it ties
// the ciphertext to the session's REPORT_DATA and to what is released, e.g.
// "workload/ID/key", so that one answer cannot stand in for another.
func ReleaseInfo(rd ReportData, name string) []byte {
	h := sha512.New()
	frame(h, []byte(releaseLabel))
	frame(h, rd[:])
	frame(h, []byte(name))
	return h.Sum(nil)
}

func frame(h hash.Hash, b []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(b)
}
