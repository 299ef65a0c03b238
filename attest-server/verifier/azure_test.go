package verifier

import (
	"bytes"
	"context"
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

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// azureVTPM is a self-made paravisor's vTPM.
type azureVTPM struct {
	key      *rsa.PrivateKey
	pcrs     [pcrCount][32]byte
	userData []byte
}

func (a *azureVTPM) varData(t *testing.T) []byte {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	b, err := json.Marshal(map[string]any{"keys": []map[string]string{{"kid": "HCLAkPub", "kty": "RSA", "n": b64(a.key.N.Bytes()), "e": b64(big.NewInt(int64(a.key.E)).Bytes())}},
		"user-data": strings.ToUpper(hex.EncodeToString(a.userData)) + strings.Repeat("00", 64-len(a.userData))})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// quote is a TPM quote of all PCRs, extra data being the user data.
func (a *azureVTPM) quote(t *testing.T) (message, signature []byte) {
	t.Helper()
	be := binary.BigEndian
	m := be.AppendUint32(nil, 0xff544347)
	m = be.AppendUint16(m, 0x8018)
	m = append(be.AppendUint16(m, 2), 0, 0) // qualified signer
	m = append(be.AppendUint16(m, uint16(len(a.userData))), a.userData...)
	m = append(m, make([]byte, 25)...)
	m = be.AppendUint16(be.AppendUint32(m, 1), 0x000b)
	m = append(m, 3, 0xff, 0xff, 0xff)
	h := sha256.New()
	for _, p := range a.pcrs {
		h.Write(p[:])
	}
	m = append(be.AppendUint16(m, 32), h.Sum(nil)...)
	sum := sha256.Sum256(m)
	sig, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return m, sig
}

// evidence is the JSON of CoCo's az-tdx-vtpm attester, version 2.
func (a *azureVTPM) evidence(t *testing.T, tdQuote []byte) []byte {
	t.Helper()
	varData := a.varData(t)
	hcl := make([]byte, hclVarData)
	binary.LittleEndian.PutUint32(hcl[hclRuntime+16:], uint32(len(varData)))
	hcl = append(append(hcl, varData...), make([]byte, 100)...)
	message, signature := a.quote(t)
	var pcrs []string
	for _, p := range a.pcrs {
		pcrs = append(pcrs, hex.EncodeToString(p[:]))
	}
	b, err := json.Marshal(map[string]any{"version": 2, "hcl_report": base64.URLEncoding.EncodeToString(hcl), "td_quote": base64.URLEncoding.EncodeToString(tdQuote),
		"tpm_quote": map[string]any{"message": hex.EncodeToString(message), "signature": hex.EncodeToString(signature), "pcrs": pcrs}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAzureTDX is az-tdx-vtpm end to end: PCK, quote, paravisor, vTPM, PCRs.
// One link is broken at a time, and the rule for that link says so.
func TestAzureTDX(t *testing.T) {
	vendor := newIntel(t)
	for _, tt := range []struct {
		name, rules string
		edit        func(a *azureVTPM, n *intel, ref *kbs.ReferenceValues, want *Expectation)
	}{
		{name: "as is"},
		{name: "other report data", rules: "report_data", edit: func(_ *azureVTPM, _ *intel, _ *kbs.ReferenceValues, w *Expectation) { w.ReportData[0]++ }},
		{name: "other kernel", rules: "pcr11", edit: func(a *azureVTPM, _ *intel, _ *kbs.ReferenceValues, _ *Expectation) { a.pcrs[11][0]++ }},
		{name: "other boot loader", rules: "pcr4", edit: func(a *azureVTPM, _ *intel, _ *kbs.ReferenceValues, _ *Expectation) { a.pcrs[4][0]++ }},
		{name: "other PCR, not registered", edit: func(a *azureVTPM, _ *intel, _ *kbs.ReferenceValues, _ *Expectation) { a.pcrs[7][0]++ }},
		{name: "boot loader not registered", rules: "pcrs_registered", edit: func(_ *azureVTPM, _ *intel, r *kbs.ReferenceValues, _ *Expectation) {
			delete(r.VTPM.PCRs, "4")
		}},
		{name: "no PCRs registered", rules: "pcrs_registered", edit: func(_ *azureVTPM, _ *intel, r *kbs.ReferenceValues, _ *Expectation) { r.VTPM = nil }},
		{name: "no PCRs registered, none required", edit: func(_ *azureVTPM, _ *intel, r *kbs.ReferenceValues, w *Expectation) {
			r.VTPM, w.RequirePCRs = nil, false
		}},
		{name: "empty PCR rules", rules: "pcrs_registered", edit: func(_ *azureVTPM, _ *intel, r *kbs.ReferenceValues, w *Expectation) {
			r.VTPM, w.RequirePCRs = &kbs.VTPMRules{}, false
		}},
		{name: "PCRs of the firmware alone", rules: "pcrs_registered", edit: func(_ *azureVTPM, _ *intel, r *kbs.ReferenceValues, _ *Expectation) {
			r.VTPM.PCRs = map[string]string{"0": strings.Repeat("0", 64)}
		}},
		{name: "PCR 99", rules: "pcrs_registered pcr99", edit: func(_ *azureVTPM, _ *intel, r *kbs.ReferenceValues, _ *Expectation) {
			r.VTPM.PCRs["99"] = strings.Repeat("0", 64)
		}},
		{name: "empty PCR", rules: "pcrs_registered pcr11", edit: func(_ *azureVTPM, _ *intel, r *kbs.ReferenceValues, _ *Expectation) { r.VTPM.PCRs["11"] = "" }},
		{name: "no vTPM key in REPORT_DATA", rules: "vtpm_binding"},
		{name: "PCK revoked", rules: "revocation", edit: func(_ *azureVTPM, n *intel, _ *kbs.ReferenceValues, _ *Expectation) {
			n.revokedPCK = []int64{pckSerial}
		}},
		{name: "TCB out of date", rules: "tcb_status", edit: func(_ *azureVTPM, n *intel, _ *kbs.ReferenceValues, _ *Expectation) {
			n.tcb = n.tcbInfo()
			n.tcb["tcbLevels"].([]map[string]any)[0]["tcbStatus"] = "OutOfDate"
		}},
		{name: "TCB of a revoked platform", rules: "tcb_status", edit: func(_ *azureVTPM, n *intel, r *kbs.ReferenceValues, _ *Expectation) {
			n.tcb = n.tcbInfo()
			n.tcb["tcbLevels"].([]map[string]any)[0]["tcbStatus"] = "Revoked"
			r.TDX.TCBStatus = []string{"Revoked"}
		}},
		{name: "collateral of another platform", rules: "collateral", edit: func(_ *azureVTPM, n *intel, _ *kbs.ReferenceValues, _ *Expectation) {
			n.tcb = n.tcbInfo()
			n.tcb["fmspc"] = "00a06d000001"
		}},
		{name: "collateral expired", rules: "collateral_validity", edit: func(_ *azureVTPM, _ *intel, _ *kbs.ReferenceValues, w *Expectation) { w.At = testTime.AddDate(0, 2, 0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := *vendor
			a := &azureVTPM{key: rsaKeys()[0], userData: bytes.Repeat([]byte{0xda}, 48)}
			a.pcrs[4], a.pcrs[11] = [32]byte{0x44}, [32]byte{0x11}
			var data kbs.ReportData
			copy(data[:], a.userData)
			want := Expectation{ReportData: data, At: testTime, RequirePCRs: true}
			ref := kbs.ReferenceValues{TEE: kbs.TDX, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{0x3e}}}, TDX: &kbs.TDXRules{RTMRs: testRTMRs()},
				VTPM: &kbs.VTPMRules{PCRs: map[string]string{"4": "44" + strings.Repeat("0", 62), "11": "11" + strings.Repeat("0", 62)}}}
			if tt.edit != nil {
				tt.edit(a, &n, &ref, &want)
			}
			digest := sha256.Sum256(a.varData(t))
			if tt.name == "no vTPM key in REPORT_DATA" {
				digest[0]++
			}
			p, err := ParseEvidence(a.evidence(t, n.quote(t, tdBody(digest[:]))))
			if err != nil {
				t.Fatal(err)
			}
			v, err := NewTDX(TDXOptions{Root: n.root, Collateral: oneCollateral{n.collateral(t)}})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			c, err := p.Verify(context.Background(), v, want.At)
			if err != nil {
				got = ruleOf(err)
			} else {
				got = failed(Appraise(c, ref, want))
			}
			if got != tt.rules || err != nil && got == "" {
				t.Errorf("failed rules %q, %v, expected %q", got, err, tt.rules)
			}
		})
	}
}

// TestAppraiseVTPMMissing: a registration for a guest with a vTPM is not met
// by one without.
func TestAppraiseVTPMMissing(t *testing.T) {
	c, ref, want := strictSNP()
	ref.VTPM = &kbs.VTPMRules{PCRs: map[string]string{"4": strings.Repeat("1", 64)}}
	if r := Appraise(c, ref, want); failed(r) != "vtpm" {
		t.Errorf("failed rules %q", failed(r))
	}
}
