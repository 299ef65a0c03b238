package snp

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/uuid"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// windows is a GUID as Windows writes it: three fields little-endian.
func windows(guid string) [16]byte {
	id := uuid.MustParse(guid)
	slices.Reverse(id[:4])
	slices.Reverse(id[4:6])
	slices.Reverse(id[6:8])
	return id
}

// hostTable is a table of entries as a host may write them.
func hostTable(entries ...any) []byte {
	var head, body []byte
	for i := 0; i < len(entries); i += 2 {
		id, content := entries[i].([16]byte), entries[i+1].([]byte)
		head = append(head, id[:]...)
		head = binary.LittleEndian.AppendUint32(head, uint32(12*len(entries)+24+len(body)))
		head = binary.LittleEndian.AppendUint32(head, uint32(len(content)))
		body = append(body, content...)
	}
	return slices.Concat(head, make([]byte, 24), body)
}

// TestHostTables: every form in which hosts were seen to send certificates.
func TestHostTables(t *testing.T) {
	v, c := newVendor(t, false), verifiertest.NewChip(t, false)
	vcek := v.VEK(t, c, verifiertest.VEKOptions{})
	vlek := v.VEK(t, c, verifiertest.VEKOptions{VLEK: true})
	report := map[string][]byte{verifier.VCEK: v.Report(t, c, nil), verifier.VLEK: v.Report(t, c, func(r []byte) { r[0x48] = 1 << 2 })}
	inPEM := func(der ...[]byte) (text []byte) {
		for _, d := range der {
			text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d})...)
		}
		return text
	}
	padded := func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 64)...) }
	vcekID, vlekID, askID := [16]byte(uuid.MustParse(abi.VcekGUID)), [16]byte(uuid.MustParse(abi.VlekGUID)), [16]byte(uuid.MustParse(abi.AskGUID))
	for _, x := range []struct {
		name, signer string
		table        []byte
		rule, got    string // no rule: accepted
	}{
		{"VCEK", verifier.VCEK, hostTable(vcekID, vcek), "", ""},
		{"VCEK, mixed-endian", verifier.VCEK, hostTable(windows(abi.VcekGUID), vcek), "", ""},
		{"VLEK, mixed-endian", verifier.VLEK, hostTable(windows(abi.VlekGUID), vlek), "", ""},
		{"PEM", verifier.VCEK, hostTable(vcekID, inPEM(vcek)), "", ""},
		{"PEM, mixed-endian, padded", verifier.VLEK, hostTable(windows(abi.VlekGUID), padded(inPEM(vlek))), "", ""},
		{"PEM of the whole chain", verifier.VCEK, hostTable(vcekID, inPEM(v.line.ARK.Raw, v.line.ASK.Raw, vcek)), "", ""},
		{"zeros behind it", verifier.VCEK, hostTable(vcekID, padded(vcek)), "", ""},
		{"other bytes behind it", verifier.VCEK, hostTable(vcekID, append(bytes.Clone(vcek), 1)), "certificate_chain", ""},
		{"cut PEM", verifier.VCEK, hostTable(vcekID, inPEM(vcek)[:200]), "certificate_chain", ""},
		{"the other key's", verifier.VCEK, hostTable(vlekID, vlek, windows(abi.AskGUID), v.line.ASK.Raw), "endorsement", "none; the host's table has VLEK, ASK"},
		{"a stranger's", verifier.VLEK, hostTable([16]byte{1}, vlek), "endorsement", "none; the host's table has 01000000-0000-0000-0000-000000000000"},
		{"empty entry", verifier.VCEK, hostTable(askID, v.line.ASK.Raw, vcekID, []byte{}), "endorsement", "none; the host's table has ASK, VCEK (empty)"},
		{"too large", verifier.VCEK, hostTable(vcekID, make([]byte, 20000)), "endorsement", "none; the host's table has VCEK of 20000 bytes (at most 16384)"},
		{"zero page", verifier.VCEK, make([]byte, 4096), "endorsement", "none; the host's table is empty"},
		{"no table", verifier.VCEK, nil, "endorsement", "none"},
	} {
		_, err := v.verifier(t, Options{}).Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report[x.signer], Certificates: x.table}, verifiertest.Time)
		var refused *verifier.Error
		if verifier.RuleOf(err) != x.rule || (err == nil) != (x.rule == "") {
			t.Errorf("%s: %v, expected rule %q", x.name, err, x.rule)
		} else if errors.As(err, &refused) && x.got != "" && refused.Rule.Got != x.got {
			t.Errorf("%s: got %q, expected %q", x.name, refused.Rule.Got, x.got)
		}
	}
}

// TestMaskedChip: a report of a VCEK that names no chip is refused, whatever
// comes with it, and the next step is one that helps.
func TestMaskedChip(t *testing.T) {
	v, c := newVendor(t, false), verifiertest.NewChip(t, false)
	report := v.Report(t, c, func(r []byte) { clear(r[0x1a0:0x1e0]) })
	for rule, table := range map[string][]byte{"endorsement": nil, "certificate_chip_id": verifiertest.CertTable(abi.VcekGUID, v.VEK(t, c, verifiertest.VEKOptions{}))} {
		_, err := v.verifier(t, Options{}).Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: report, Certificates: table}, verifiertest.Time)
		var refused *verifier.Error
		if !errors.As(err, &refused) || refused.Rule.Rule != rule || !strings.Contains(refused.Hint(), "unmask") {
			t.Errorf("%s: %v", rule, err)
		}
	}
}
