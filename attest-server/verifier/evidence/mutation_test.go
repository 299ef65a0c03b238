package evidence

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// azureMachine is evidence of both kinds of Azure guests, and the verifiers
// under whose roots it is authentic.
func azureMachine(t *testing.T) (ofSNP, ofTDX []byte, v verifier.ByTEE) {
	t.Helper()
	a := &verifiertest.VTPM{Key: verifiertest.RSAKeys()[0], UserData: bytes.Repeat([]byte{0xda}, 48)}
	a.PCRs[4] = [32]byte{0x44}
	digest := sha256.Sum256(a.VarData(t))
	vendor, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	report := vendor.Report(t, c, func(r []byte) {
		clear(r[0x50:0x90])
		copy(r[0x50:], digest[:])
	})
	n := vendortest.NewIntel(t)
	td, err := tdx.New(tdx.Options{Root: n.Root, Collateral: vendortest.Collaterals{n.Publish(t)}})
	if err != nil {
		t.Fatal(err)
	}
	return a.EvidenceSNP(t, report, vendor.VEK(t, c, verifiertest.VEKOptions{})), a.EvidenceTDX(t, n.Quote(t, verifiertest.Body(digest[:]))),
		verifier.ByTEE{kbs.SNP: vendor.Verifier(t, snp.Options{}), kbs.TDX: td}
}

func judgeJSON(v verifier.Verifier, b []byte) string {
	p, err := Parse(b)
	if err == nil {
		_, err = p.Verify(context.Background(), v, verifiertest.Time)
	}
	if err != nil && verifier.RuleOf(err) == "" {
		return err.Error()
	}
	return verifier.RuleOf(err)
}

// asVersion is evidence of version 2 in the spelling of versions 1 and 0.
func asVersion(t *testing.T, b []byte, version int) []byte {
	t.Helper()
	e := verifiertest.Generic(t, json.RawMessage(b))
	if version > 0 {
		e["version"] = version
		return marshal(t, e)
	}
	q := e["tpm_quote"].(map[string]any)
	var pcrs []any
	for _, p := range q["pcrs"].([]any) {
		pcrs = append(pcrs, numbers(verifiertest.Unhex(t, p.(string))))
	}
	quote := map[string]any{"signature": numbers(verifiertest.Unhex(t, q["signature"].(string))), "message": numbers(verifiertest.Unhex(t, q["message"].(string))), "pcrs": pcrs}
	hcl := numbers(unbase64(t, e["hcl_report"].(string)))
	if td, ok := e["td_quote"]; ok {
		return marshal(t, map[string]any{"tpm_quote": quote, "hcl_report": hcl, "td_quote": numbers(unbase64(t, td.(string)))})
	}
	vcek := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: unbase64(t, e["vcek"].(string))})
	return marshal(t, map[string]any{"quote": quote, "report": hcl, "vcek": string(vcek)})
}

func numbers(b []byte) (n []any) {
	for _, x := range b {
		n = append(n, int(x))
	}
	return n
}

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.URLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestEveryFieldAzure: every byte of every member of the evidence of Azure's
// guests is changed; what is accepted is known to be signed by nobody and to
// say nothing: the paravisor's headers and what follows its data.
func TestEveryFieldAzure(t *testing.T) {
	snp, tdx, v := azureMachine(t)
	total := 0
	for name, good := range map[string][]byte{"snp": snp, "tdx": tdx} {
		for _, version := range []int{0, 1, 2} {
			if rule := judgeJSON(v, asVersion(t, good, version)); rule != "" {
				t.Errorf("%s version %d: refused by %s", name, version, rule)
			}
		}
		e := verifiertest.Generic(t, json.RawMessage(good))
		verifiertest.Leaves("", e, func(path string, value any, set func(any)) {
			defer set(value)
			s, ok := value.(string)
			if !ok {
				for _, x := range []any{0, 3, -1, "2", 2.5, nil, []any{2}} {
					set(x)
					total++
					if rule := judgeJSON(v, marshal(t, e)); rule != "evidence_format" && !(x == nil && rule != "") {
						t.Errorf("%s %s %v: refused by %q", name, path, x, rule)
					}
				}
				return
			}
			for _, x := range []any{"", strings.TrimRight(s, "=")[:len(s)-3], s + "!", s + "=", nil, 7, []any{s}} {
				set(x)
				total++
				if judgeJSON(v, marshal(t, e)) == "" {
					t.Errorf("%s %s of another form is accepted: %.40v", name, path, x)
				}
			}
			decode, encode := hex.DecodeString, hex.EncodeToString
			if path == ".hcl_report" || path == ".vcek" || path == ".td_quote" {
				decode, encode = base64.URLEncoding.DecodeString, base64.URLEncoding.EncodeToString
			}
			b, err := decode(s)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			// Every byte of reports, quotes and certificates has its turn elsewhere.
			stride := map[string]int{".td_quote": 29, ".vcek": 29, ".hcl_report": 5, ".tpm_quote.message": 1}[path]
			if stride == 0 {
				stride = 7
			}
			for i := 0; i < len(b); i += stride {
				b[i] ^= 1 << (i % 8)
				set(encode(b))
				b[i] ^= 1 << (i % 8)
				total++
				rule := judgeJSON(v, marshal(t, e))
				if free := path == ".hcl_report" && unsignedHCL(b, i, name); (rule == "") != free {
					t.Errorf("%s %s byte %#x: refused by %q", name, path, i, rule)
				}
			}
		})
		for _, member := range []string{"version", "tpm_quote", "hcl_report", "vcek", "td_quote"} {
			m := verifiertest.Generic(t, json.RawMessage(good))
			if _, ok := m[member]; !ok {
				continue
			}
			delete(m, member)
			total++
			if judgeJSON(v, marshal(t, m)) == "" {
				t.Errorf("%s without %s is accepted", name, member)
			}
		}
	}
	t.Logf("%d changes to Azure's evidence", total)
}

// unsignedHCL is what of the paravisor's blob nothing signs: its header, the
// runtime header but for the data's length, what follows the data, and for a
// TD, whose quote comes beside it, the room for a report.
func unsignedHCL(b []byte, i int, tee string) bool {
	end := hclVarData + int(binary.LittleEndian.Uint32(b[hclRuntime+16:]))
	return i < hclReport || i >= hclReport && i < hclRuntime && tee == "tdx" || i >= hclRuntime && i < hclRuntime+16 || i >= end
}

// TestEveryFieldCoCo: members of CoCo's JSON that are missing, null or of
// another type; TestCoCoMutations changes their values.
func TestEveryFieldCoCo(t *testing.T) {
	total := 0
	for _, fmc := range []bool{false, true} {
		v, c := vendortest.NewVendor(t, fmc), verifiertest.NewChip(t, fmc)
		s := v.Verifier(t, snp.Options{Endorsements: vendortest.Only(v.VEK(t, c, verifiertest.VEKOptions{}))})
		good := cocoJSON(t, v.Report(t, c, nil), func(r map[string]any) {
			if fmc {
				cocoTurin(r, c)
			}
		})
		if rule := judgeJSON(s, good); rule != "" {
			t.Fatalf("fmc %t: unchanged: refused by %s", fmc, rule)
		}
		e := verifiertest.Generic(t, json.RawMessage(good))
		report := e["attestation_report"].(map[string]any)
		for name, value := range report {
			others := []any{nil, "x", map[string]any{}, []any{}, -1, 1e30, []any{1}, true}
			for _, other := range others {
				report[name] = other
				total++
				rule := judgeJSON(s, marshal(t, e))
				if other == nil && (name == "vmpl" || name == "guest_svn" || strings.HasSuffix(name, "mit_vector") || name == "cpuid_mod_id" || name == "cpuid_step" || name == "key_info" || name == "plat_info") {
					continue // null is as good as the 0 that was there
				}
				if rule == "" {
					t.Errorf("fmc %t: %s = %v is accepted", fmc, name, other)
				}
			}
			delete(report, name)
			total++
			if rule := judgeJSON(s, marshal(t, e)); rule == "" && !isZeroJSON(value) {
				t.Errorf("fmc %t: without %s it is accepted", fmc, name)
			}
			report[name] = value
		}
		for _, chain := range []any{"x", 7, []any{7}, []any{map[string]any{"cert_type": "VCEK", "data": []any{}}}, []any{map[string]any{"cert_type": "VCEK", "data": "!"}},
			[]any{map[string]any{"cert_type": "VCEK", "data": []any{256}}}, make([]any, 65)} {
			e["cert_chain"] = chain
			total++
			if rule := judgeJSON(s, marshal(t, e)); rule != "evidence_format" {
				t.Errorf("cert_chain %.30v: refused by %q", chain, rule)
			}
		}
		for _, chain := range []any{nil, []any{}, []any{map[string]any{"cert_type": "ARK", "data": []any{1, 2}}, map[string]any{"cert_type": map[string]any{"OTHER": "x"}, "data": []any{}}}} {
			e["cert_chain"] = chain
			if rule := judgeJSON(s, marshal(t, e)); rule != "" {
				t.Errorf("cert_chain %v: refused by %s", chain, rule)
			}
		}
		e["cert_chain"] = nil
		tcb := report["reported_tcb"].(map[string]any)
		was := tcb["fmc"]
		for _, x := range []any{7, 0} {
			tcb["fmc"] = x
			total++
			if rule := judgeJSON(s, marshal(t, e)); rule == "" {
				t.Errorf("fmc %t: a reported TCB with fmc %v is accepted", fmc, x)
			}
		}
		tcb["fmc"] = was
		if !fmc {
			continue // TestCoCoMutations
		}
		mutate(report, func(path string) {
			total++
			if judgeJSON(s, marshal(t, e)) == "" {
				t.Errorf("fmc %t: %s changed and accepted", fmc, path)
			}
		})
	}
	t.Logf("%d changes to CoCo's evidence", total)
}

func isZeroJSON(v any) bool { return v == nil || v == 0. }

// cocoTurin has the members of a TCB in their places on Turin.
func cocoTurin(r map[string]any, c *verifiertest.Chip) {
	for _, name := range []string{"current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"} {
		r[name] = map[string]any{"fmc": c.TCB.FMC, "bootloader": c.TCB.Bootloader, "tee": c.TCB.TEE, "snp": c.TCB.SNP, "microcode": c.TCB.Microcode}
	}
}
