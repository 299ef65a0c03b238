package verifier

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// testTime is when everything self-made is valid.
var testTime = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// vendor is a self-made ARK, ASK and ASVK.
type vendor struct {
	line               ProductLine
	ark, ask, asvk     *rsa.PrivateKey
	notBefore, expires time.Time
}

var rsaKeys = sync.OnceValue(func() []*rsa.PrivateKey {
	var keys []*rsa.PrivateKey
	for range 4 {
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
})

// newVendor makes a product line named Milan, or Turin if fmc is set. Another
// look gives the same names with other keys.
func newVendor(t testing.TB, fmc bool, keys ...int) *vendor {
	t.Helper()
	if keys == nil {
		keys = []int{0, 1, 2}
	}
	k := rsaKeys()
	v := &vendor{ark: k[keys[0]], ask: k[keys[1]], asvk: k[keys[2]],
		notBefore: testTime.AddDate(-5, 0, 0), expires: testTime.AddDate(20, 0, 0)}
	v.line = ProductLine{Name: "Milan", CPUs: []CPURange{{0x19, 0, 0xf}}}
	if fmc {
		v.line = ProductLine{Name: "Turin", CPUs: []CPURange{{0x1a, 0, 0x11}}, FMC: true}
	}
	v.line.ARK = v.ca(t, "ARK-"+v.line.Name, 1, v.ark, nil)
	v.line.ASK = v.ca(t, "SEV-"+v.line.Name, 2, v.ask, v.line.ARK)
	v.line.ASVK = v.ca(t, "SEV-VLEK-"+v.line.Name, 3, v.asvk, v.line.ARK)
	return v
}

func (v *vendor) ca(t testing.TB, name string, serial int64, k *rsa.PrivateKey, issuer *x509.Certificate) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: v.notBefore, NotAfter: v.expires,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SignatureAlgorithm: x509.SHA384WithRSAPSS}
	if issuer == nil {
		issuer = c
	}
	return sign(t, c, issuer, &k.PublicKey, v.ark)
}

func sign(t testing.TB, c, issuer *x509.Certificate, pub any, k *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, pub, k)
	if err != nil {
		t.Fatal(err)
	}
	c, err = x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// chip is one processor: its id and TCB, and the key for that TCB.
type chip struct {
	id  [64]byte
	tcb kbs.SNPTCB
	key *ecdsa.PrivateKey
}

func newChip(t testing.TB, fmc bool) *chip {
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &chip{tcb: kbs.SNPTCB{Bootloader: 4, TEE: 1, SNP: 24, Microcode: 219}, key: k}
	n := 64
	if fmc {
		n, c.tcb.FMC = 8, 2
	}
	for i := range n {
		c.id[i] = byte(i + 1)
	}
	return c
}

// vekOptions changes what vendor.vek writes.
type vekOptions struct {
	vlek      bool
	signer    *x509.Certificate // other issuer
	signerKey *rsa.PrivateKey
	edit      func(*x509.Certificate)
}

// vek is the certificate that the vendor's KDS would give for c.
func (v *vendor) vek(t testing.TB, c *chip, o vekOptions) []byte {
	t.Helper()
	name, issuer, key := "SEV-VCEK", v.line.ASK, v.ask
	if o.vlek {
		name, issuer, key = "SEV-VLEK", v.line.ASVK, v.asvk
	}
	if o.signer != nil {
		issuer, key = o.signer, o.signerKey
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: name}, NotBefore: testTime.AddDate(-1, 0, 0),
		NotAfter: testTime.AddDate(6, 0, 0), SignatureAlgorithm: x509.SHA384WithRSAPSS}
	put := func(value any, params string, oid ...int) {
		der, ok := value.([]byte)
		if !ok {
			var err error
			if der, err = asn1.MarshalWithParams(value, params); err != nil {
				t.Fatal(err)
			}
		}
		cert.ExtraExtensions = append(cert.ExtraExtensions, pkix.Extension{Id: append([]int{1, 3, 6, 1, 4, 1, 3704, 1}, oid...), Value: der})
	}
	put(1, "", 1)
	put(v.line.Name+"-B0", "ia5", 2)
	put(int(c.tcb.Bootloader), "", 3, 1)
	put(int(c.tcb.TEE), "", 3, 2)
	put(int(c.tcb.SNP), "", 3, 3)
	put(0, "", 3, 5)
	put(int(c.tcb.Microcode), "", 3, 8)
	if v.line.FMC {
		put(int(c.tcb.FMC), "", 3, 9)
	}
	if o.vlek {
		put("a cloud", "ia5", 5)
	} else {
		put(hwid(c.id[:], v.line.FMC), "", 4)
	}
	if o.edit != nil {
		o.edit(cert)
	}
	return sign(t, cert, issuer, &c.key.PublicKey, key).Raw
}

// report is a report of version 5 by c, changed by edit, then signed.
func (v *vendor) report(t testing.TB, c *chip, edit func(raw []byte)) []byte {
	t.Helper()
	raw := make([]byte, SNPReportSize)
	le := binary.LittleEndian
	le.PutUint32(raw, 5)
	le.PutUint64(raw[0x08:], 0x30000)
	le.PutUint32(raw[0x34:], 1)
	raw[0x50], raw[0x90] = 0xda, 0x3e // report data, measurement
	for i := 0x160; i < 0x180; i++ {
		raw[i] = 0xff
	}
	raw[0x188] = v.line.CPUs[0].Family
	copy(raw[0x1a0:], c.id[:])
	tcb := []byte{c.tcb.Bootloader, c.tcb.TEE, 0, 0, 0, 0, c.tcb.SNP, c.tcb.Microcode}
	if v.line.FMC {
		tcb = []byte{c.tcb.FMC, c.tcb.Bootloader, c.tcb.TEE, c.tcb.SNP, 0, 0, 0, c.tcb.Microcode}
	}
	for _, off := range []int{0x38, 0x180, 0x1e0, 0x1f0} {
		copy(raw[off:], tcb)
	}
	copy(raw[0x1e8:], []byte{40, 55, 1, 0, 40, 55, 1})
	if edit != nil {
		edit(raw)
	}
	signReport(t, c, raw)
	return raw
}

func signReport(t testing.TB, c *chip, raw []byte) {
	t.Helper()
	sum := sha512.Sum384(abi.SignedComponent(raw))
	r, s, err := ecdsa.Sign(rand.Reader, c.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := abi.SetSignature(r, s, raw); err != nil {
		t.Fatal(err)
	}
}

func (v *vendor) crl(t testing.TB, issuer *x509.Certificate, k *rsa.PrivateKey, next time.Time, serials ...int64) *x509.RevocationList {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: testTime.AddDate(0, -1, 0), NextUpdate: next, SignatureAlgorithm: x509.SHA384WithRSAPSS}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: testTime.AddDate(0, -2, 0)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, issuer, k)
	if err != nil {
		t.Fatal(err)
	}
	if l, err = x509.ParseRevocationList(der); err != nil {
		t.Fatal(err)
	}
	return l
}

func (v *vendor) verifier(t testing.TB, o SNPOptions) *SNPVerifier {
	t.Helper()
	o.Roots = []ProductLine{v.line}
	s, err := NewSNP(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSNPChain: one thing wrong with the chain, the certificate or the host's
// table at a time; each is refused, and by the rule that says why.
func TestSNPChain(t *testing.T) {
	v, other := newVendor(t, false), newVendor(t, false, 3, 1, 2)
	c, c2 := newChip(t, false), newChip(t, false)
	c2.id[0]++
	old := *c
	old.tcb.Microcode--
	good := v.vek(t, c, vekOptions{})
	next := testTime.AddDate(0, 1, 0)
	table := func(der []byte) []byte { return certTable(abi.VcekGUID, der) }
	lookalike := newVendor(t, false, 3, 3, 3)
	for _, tt := range []struct {
		name, rule string // no rule: accepted
		table      []byte
		report     []byte
		opts       SNPOptions
		at         time.Time
	}{
		{name: "good", table: table(good)},
		{name: "good with CRL", table: table(good), opts: SNPOptions{CRLs: []*x509.RevocationList{v.crl(t, v.line.ARK, v.ark, next)}, RequireCRL: true}},
		{name: "look-alike root", rule: "certificate_chain", table: table(lookalike.vek(t, c, vekOptions{}))},
		{name: "signed by the ASVK", rule: "certificate_chain", table: table(v.vek(t, c, vekOptions{signer: v.line.ASVK, signerKey: v.asvk}))},
		{name: "signed by the ARK", rule: "certificate_chain", table: table(v.vek(t, c, vekOptions{signer: v.line.ARK, signerKey: v.ark}))},
		{name: "certificate of the ASK itself", rule: "certificate_chain", table: table(v.line.ASK.Raw)},
		{name: "garbage for a certificate", rule: "certificate_chain", table: table([]byte("not DER"))},
		{name: "another name", rule: "certificate_chain", table: table(v.vek(t, c, vekOptions{edit: func(x *x509.Certificate) { x.Subject.CommonName = "VCEK" }}))},
		{name: "unknown security version", rule: "certificate_chain", table: table(v.vek(t, c, vekOptions{edit: addExtension(3, 10)}))},
		{name: "no microcode version", rule: "certificate_chain", table: table(v.vek(t, c, vekOptions{edit: setExtension([]int{3, 8}, []int{7})}))},
		{name: "no hardware id", rule: "certificate_chain", table: table(v.vek(t, c, vekOptions{edit: setExtension([]int{4}, []int{7})}))},
		{name: "expired", rule: "certificate_validity", table: table(good), at: testTime.AddDate(7, 0, 0)},
		{name: "not yet valid by an hour", rule: "certificate_validity", table: table(good), at: testTime.AddDate(-1, 0, 0).Add(-time.Hour)},
		{name: "valid for the last hour", table: table(good), at: testTime.AddDate(6, 0, 0).Add(-time.Hour)},
		{name: "expired by an hour", rule: "certificate_validity", table: table(good), at: testTime.AddDate(6, 0, 0).Add(time.Hour)},
		{name: "another chip", rule: "certificate_chip_id", table: table(v.vek(t, c2, vekOptions{}))},
		{name: "another TCB", rule: "certificate_tcb", table: table(v.vek(t, &old, vekOptions{}))},
		{name: "another key of the chip", rule: "signature", table: table(v.vek(t, rekeyed(t, c), vekOptions{}))},
		{name: "VLEK in the VCEK's place", rule: "signer", table: table(v.vek(t, c, vekOptions{vlek: true}))},
		{name: "ASK revoked", rule: "revocation", table: table(good), opts: SNPOptions{CRLs: []*x509.RevocationList{v.crl(t, v.line.ARK, v.ark, next, 2)}}},
		{name: "VCEK revoked by the ASK", rule: "revocation", table: table(good), opts: SNPOptions{CRLs: []*x509.RevocationList{v.crl(t, v.line.ASK, v.ask, next, 9)}}},
		{name: "other serial revoked", table: table(good), opts: SNPOptions{CRLs: []*x509.RevocationList{v.crl(t, v.line.ARK, v.ark, next, 3)}}},
		{name: "CRL expired", rule: "revocation", table: table(good), opts: SNPOptions{CRLs: []*x509.RevocationList{v.crl(t, v.line.ARK, v.ark, testTime.Add(-time.Hour))}}},
		{name: "no CRL where required", rule: "revocation", table: table(good), opts: SNPOptions{RequireCRL: true}},
		{name: "CRL of a stranger", table: table(good), opts: SNPOptions{CRLs: []*x509.RevocationList{stranger(t)}}},
		{name: "no certificate", rule: "endorsement"},
		{name: "table cut short", rule: "certificate_table", table: table(good)[:40]},
		{name: "entry beyond the table", rule: "certificate_table", table: table(good)[:100]},
		{name: "entry that wraps at 32 bits", rule: "certificate_table", table: wrapping(good)},
		{name: "64 MiB table", rule: "certificate_table", table: make([]byte, 64<<20)},
		{name: "only a VLEK in the table", rule: "endorsement", table: certTable(abi.VlekGUID, good)},
		{name: "from the store", opts: SNPOptions{Endorsements: store(good)}},
		{name: "stale from the host, good in the store", table: table(v.vek(t, &old, vekOptions{})), opts: SNPOptions{Endorsements: store(good)}},
		{name: "another TCB in the store", rule: "certificate_tcb", opts: SNPOptions{Endorsements: store(v.vek(t, &old, vekOptions{}))}},
		{name: "another chip in the store", rule: "certificate_chip_id", opts: SNPOptions{Endorsements: store(v.vek(t, c2, vekOptions{}))}},
		{name: "a VLEK's report", report: v.report(t, c, func(r []byte) { r[0x48] = 1 << 2 }), table: certTable(abi.VlekGUID, v.vek(t, c, vekOptions{vlek: true}))},
		{name: "a VLEK signed by the ASK", rule: "certificate_chain", report: v.report(t, c, func(r []byte) { r[0x48] = 1 << 2 }),
			table: certTable(abi.VlekGUID, v.vek(t, c, vekOptions{vlek: true, signer: v.line.ASK, signerKey: v.ask}))},
		{name: "no time", rule: "clock", table: table(good), at: time.Time{}.Add(1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.report == nil {
				tt.report = v.report(t, c, nil)
			}
			if tt.at.IsZero() {
				tt.at = testTime
			}
			if tt.rule == "clock" {
				tt.at = time.Time{}
			}
			s := v.verifier(t, tt.opts)
			ev := kbs.Evidence{TEE: kbs.SNP, Report: tt.report, Certificates: tt.table}
			for _, pass := range []string{"cold", "cached"} {
				claims, err := s.Verify(context.Background(), ev, tt.at)
				if ruleOf(err) != tt.rule || (err == nil) != (tt.rule == "") || (claims == nil) != (err != nil) {
					t.Fatalf("%s: got %v, expected rule %q", pass, err, tt.rule)
				}
			}
		})
	}
	if _, err := NewSNP(SNPOptions{Roots: []ProductLine{v.line}, CRLs: []*x509.RevocationList{other.crl(t, other.line.ARK, other.ark, next)}}); err == nil {
		t.Error("a CRL with the ARK's name and another signature was dropped in silence")
	}
	mixed := v.line
	mixed.ARK = other.line.ARK
	if _, err := NewSNP(SNPOptions{Roots: []ProductLine{mixed}}); err == nil {
		t.Error("an ASK that the ARK did not sign was taken as a root")
	}
	if _, err := NewSNP(SNPOptions{TEE: kbs.Sample}); err == nil {
		t.Error("the sample TEE was given AMD's roots")
	}
}

func store(der []byte) *Bundle {
	b := &Bundle{}
	b.Add(der)
	return b
}

func rekeyed(t testing.TB, c *chip) *chip {
	k := *c
	k.key = newChip(t, false).key
	return &k
}

func stranger(t testing.TB) *x509.RevocationList {
	v := newVendor(t, true, 3, 1, 2)
	return v.crl(t, v.line.ARK, v.ark, testTime.AddDate(0, 1, 0), 2)
}

// wrapping is a table whose entry's offset and length add up to little in 32
// bits.
func wrapping(der []byte) []byte {
	b := certTable(abi.VcekGUID, der)
	binary.LittleEndian.PutUint32(b[16:], 0xfffffff0)
	binary.LittleEndian.PutUint32(b[20:], 0x20)
	return b
}

func addExtension(oid ...int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: append([]int{1, 3, 6, 1, 4, 1, 3704, 1}, oid...), Value: []byte{2, 1, 0}})
	}
}

// setExtension renames one KDS extension.
func setExtension(from, to []int) func(*x509.Certificate) {
	arc := []int{1, 3, 6, 1, 4, 1, 3704, 1}
	return func(c *x509.Certificate) {
		for i, e := range c.ExtraExtensions {
			if e.Id.Equal(append(arc[:8:8], from...)) {
				c.ExtraExtensions[i].Id = append(arc[:8:8], to...)
			}
		}
	}
}

// TestSNPReportIdentity: what names chip, TCB, signer and product must agree
// with the certificate, whatever a signed report says.
func TestSNPReportIdentity(t *testing.T) {
	for _, fmc := range []bool{false, true} {
		v, c := newVendor(t, fmc), newChip(t, fmc)
		s := v.verifier(t, SNPOptions{})
		table := certTable(abi.VcekGUID, v.vek(t, c, vekOptions{}))
		for _, tt := range []struct {
			name, rule string
			edit       func(r []byte)
		}{
			{"as is", "", nil},
			{"version 1", "report_version", func(r []byte) { r[0] = 1 }},
			{"version 4", "report_version", func(r []byte) { r[0] = 4 }},
			{"version 6", "report_version", func(r []byte) { r[0] = 6 }},
			{"algorithm", "signature_algorithm", func(r []byte) { r[0x34] = 2 }},
			{"not signed", "signer", func(r []byte) { r[0x48] = 7 << 2 }},
			{"reserved signer", "evidence_format", func(r []byte) { r[0x48] = 3 << 2 }},
			{"VLEK", "endorsement", func(r []byte) { r[0x48] = 1 << 2 }},
			{"policy's reserved one", "evidence_format", func(r []byte) { r[0x0a] = 1 }},
			{"chip", "certificate_chip_id", func(r []byte) { r[0x1a0] ^= 1 }},
			{"chip's last byte", "certificate_chip_id", func(r []byte) { r[0x1df] ^= 1 }},
			{"chip masked", "certificate_chip_id", func(r []byte) { clear(r[0x1a0:0x1e0]) }},
			{"bootloader", "certificate_tcb", func(r []byte) { r[0x180+b2i(fmc)]++ }},
			{"microcode", "certificate_tcb", func(r []byte) { r[0x187]++ }},
			{"reserved TCB byte", "evidence_format", func(r []byte) { r[0x184]++ }},
			{"family", "product", func(r []byte) { r[0x188] = 0x17 }},
			{"model", "product", func(r []byte) { r[0x189] = 0x80 }},
			{"version 2 without CPUID", "", func(r []byte) { r[0] = 2; clear(r[0x188:0x18b]) }},
		} {
			raw := v.report(t, c, tt.edit)
			_, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: raw, Certificates: table}, testTime)
			if ruleOf(err) != tt.rule || (err == nil) != (tt.rule == "") {
				t.Errorf("fmc %t, %s: got %v, expected rule %q", fmc, tt.name, err, tt.rule)
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// withSerial is crl with one more entry. Its signature is not looked at again.
func withSerial(crl *x509.RevocationList, c *x509.Certificate) *x509.RevocationList {
	l := *crl
	l.RevokedCertificateEntries = append(l.RevokedCertificateEntries[:len(l.RevokedCertificateEntries):len(l.RevokedCertificateEntries)],
		x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: testTime})
	return &l
}
