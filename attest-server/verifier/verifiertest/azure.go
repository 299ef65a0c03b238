package verifiertest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
)

// VTPM is the vTPM of a paravisor like Azure's.
type VTPM struct {
	Key      *rsa.PrivateKey // of 2048 bits
	PCRs     [24][32]byte
	UserData []byte // at most 64
}

// VarData is what the TEE's report holds the SHA-256 of.
func (a *VTPM) VarData(t testing.TB) []byte {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	b, err := json.Marshal(map[string]any{"keys": []map[string]string{{"kid": "HCLAkPub", "kty": "RSA", "n": b64(a.Key.N.Bytes()), "e": b64(big.NewInt(int64(a.Key.E)).Bytes())}},
		"user-data": strings.ToUpper(hex.EncodeToString(a.UserData)) + strings.Repeat("00", 64-len(a.UserData))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// quote is a TPM quote of all PCRs, extra data being the user data.
func (a *VTPM) quote(t testing.TB) (message, signature []byte) {
	t.Helper()
	be := binary.BigEndian
	m := be.AppendUint32(nil, 0xff544347)
	m = be.AppendUint16(m, 0x8018)
	m = append(be.AppendUint16(m, 2), 0, 0) // qualified signer
	m = append(be.AppendUint16(m, uint16(len(a.UserData))), a.UserData...)
	m = append(m, make([]byte, 25)...)
	m = be.AppendUint16(be.AppendUint32(m, 1), 0x000b)
	m = append(m, 3, 0xff, 0xff, 0xff)
	h := sha256.New()
	for _, p := range a.PCRs {
		h.Write(p[:])
	}
	m = append(be.AppendUint16(m, 32), h.Sum(nil)...)
	sum := sha256.Sum256(m)
	sig, err := rsa.SignPKCS1v15(rand.Reader, a.Key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return m, sig
}

// EvidenceTDX is the JSON of CoCo's az-tdx-vtpm attester, version 2.
func (a *VTPM) EvidenceTDX(t testing.TB, tdQuote []byte) []byte {
	t.Helper()
	return a.evidence(t, make([]byte, reportBytes), map[string]any{"td_quote": base64.URLEncoding.EncodeToString(tdQuote)})
}

// EvidenceSNP is the JSON of CoCo's az-snp-vtpm attester, version 2.
func (a *VTPM) EvidenceSNP(t testing.TB, report, vcek []byte) []byte {
	t.Helper()
	return a.evidence(t, report, map[string]any{"vcek": base64.URLEncoding.EncodeToString(vcek)})
}

// reportBytes is the size of an SNP report, and the room for the TEE's report
// in the paravisor's blob, after a header of 32 bytes and before one of 20.
const reportBytes = 1184

func (a *VTPM) evidence(t testing.TB, report []byte, more map[string]any) []byte {
	t.Helper()
	varData := a.VarData(t)
	hcl := append(make([]byte, 32), report...)
	hcl = append(hcl, make([]byte, 16)...)
	hcl = binary.LittleEndian.AppendUint32(hcl, uint32(len(varData)))
	hcl = append(append(hcl, varData...), make([]byte, 100)...)
	message, signature := a.quote(t)
	var pcrs []string
	for _, p := range a.PCRs {
		pcrs = append(pcrs, hex.EncodeToString(p[:]))
	}
	more["version"], more["hcl_report"] = 2, base64.URLEncoding.EncodeToString(hcl)
	more["tpm_quote"] = map[string]any{"message": hex.EncodeToString(message), "signature": hex.EncodeToString(signature), "pcrs": pcrs}
	b, err := json.Marshal(more)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
