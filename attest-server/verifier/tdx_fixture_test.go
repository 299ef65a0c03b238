package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// intel is a self-made Intel: root, platform CA, TCB signer and one machine.
type intel struct {
	root, ca, pck, signer         *x509.Certificate
	rootKey, caKey, pckKey, tcKey *ecdsa.PrivateKey
	revokedPCK                    []int64   // serials for the PCK CRL
	crlAt                         time.Time // of its CRLs
	tcb                           map[string]any
}

const (
	testFMSPC = "00a06d000000"
	pckSerial = 77
)

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newIntel(t testing.TB) *intel {
	t.Helper()
	n := &intel{rootKey: ecKey(t), caKey: ecKey(t), pckKey: ecKey(t), tcKey: ecKey(t)}
	n.root = n.cert(t, "Intel SGX Root CA", 1, true, nil, &n.rootKey.PublicKey, n.rootKey)
	n.ca = n.cert(t, "Intel SGX PCK Platform CA", 2, true, n.root, &n.caKey.PublicKey, n.rootKey)
	n.signer = n.cert(t, "Intel SGX TCB Signing", 3, false, n.root, &n.tcKey.PublicKey, n.rootKey)
	n.pck = n.cert(t, "Intel SGX PCK Certificate", pckSerial, false, n.ca, &n.pckKey.PublicKey, n.caKey,
		pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, Value: sgxExtension(t)})
	n.tcb, n.crlAt = n.tcbInfo(), testTime.AddDate(0, 0, -1)
	return n
}

func (n *intel) cert(t testing.TB, name string, serial int64, ca bool, issuer *x509.Certificate, pub *ecdsa.PublicKey, k *ecdsa.PrivateKey, extra ...pkix.Extension) *x509.Certificate {
	t.Helper()
	usage := x509.KeyUsageDigitalSignature
	if ca {
		usage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	id := sha256.Sum256([]byte(name))
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: testTime.AddDate(-1, 0, 0),
		NotAfter: testTime.AddDate(5, 0, 0), IsCA: ca, BasicConstraintsValid: true, KeyUsage: usage, SubjectKeyId: id[:20],
		CRLDistributionPoints: []string{"https://example.org/crl"}, SignatureAlgorithm: x509.ECDSAWithSHA256, ExtraExtensions: extra}
	if issuer == nil {
		issuer = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer, pub, k)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return c
}

// sgxExtension is the SGX extension of a PCK certificate: PPID, TCB, PCEID and
// FMSPC, each component of the CPUSVN being 2.
func sgxExtension(t testing.TB) []byte {
	t.Helper()
	oid := func(n ...int) asn1.ObjectIdentifier {
		return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, n...)
	}
	type number struct {
		ID asn1.ObjectIdentifier
		V  int
	}
	type octets struct {
		ID asn1.ObjectIdentifier
		V  []byte
	}
	var tcb []any
	for i := 1; i <= 16; i++ {
		tcb = append(tcb, number{oid(2, i), 2})
	}
	tcb = append(tcb, number{oid(2, 17), 11}, octets{oid(2, 18), bytes.Repeat([]byte{2}, 16)})
	fmspc, err := hex.DecodeString(testFMSPC)
	if err != nil {
		t.Fatal(err)
	}
	sequence := func(parts ...any) asn1.RawValue {
		var b []byte
		for _, p := range parts {
			der, err := asn1.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, der...)
		}
		return asn1.RawValue{Class: asn1.ClassUniversal, Tag: asn1.TagSequence, IsCompound: true, Bytes: b}
	}
	der, err := asn1.Marshal(sequence(octets{oid(1), make([]byte, 16)}, sequence(oid(2), sequence(tcb...)), octets{oid(3), []byte{0, 0}}, octets{oid(4), fmspc}))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (n *intel) tcbInfo() map[string]any {
	components, tdx := make([]map[string]int, 16), make([]map[string]int, 16)
	for i := range components {
		components[i], tdx[i] = map[string]int{"svn": 2}, map[string]int{"svn": 2}
	}
	tdx[1] = map[string]int{"svn": 0} // as in tdBody
	return map[string]any{"id": "TDX", "version": 3, "issueDate": testTime.AddDate(0, 0, -1).Format(time.RFC3339), "nextUpdate": testTime.AddDate(0, 1, 0).Format(time.RFC3339),
		"fmspc": testFMSPC, "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 18,
		"tdxModule": map[string]string{"mrsigner": strings.Repeat("0", 96), "attributes": strings.Repeat("0", 16), "attributesMask": strings.Repeat("f", 16)},
		"tcbLevels": []map[string]any{{"tcb": map[string]any{"sgxtcbcomponents": components, "pcesvn": 11, "tdxtcbcomponents": tdx},
			"tcbDate": testTime.Format(time.RFC3339), "tcbStatus": "UpToDate"}}}
}

// collateral is what this Intel's PCS would answer.
func (n *intel) collateral(t testing.TB) *Collateral {
	t.Helper()
	chain := func(c *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.root.Raw}))
	}
	signed := func(v any) (string, string) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b), hex.EncodeToString(signP256(t, n.tcKey, b))
	}
	qe := map[string]any{"id": "TD_QE", "version": 2, "issueDate": testTime.Format(time.RFC3339), "nextUpdate": testTime.AddDate(0, 1, 0).Format(time.RFC3339), "tcbEvaluationDataNumber": 18,
		"miscselect": "00000000", "miscselectMask": "ffffffff", "attributes": strings.Repeat("0", 32), "attributesMask": strings.Repeat("f", 32),
		"mrsigner": strings.Repeat("ab", 32), "isvprodid": 2,
		"tcbLevels": []map[string]any{{"tcb": map[string]int{"isvsvn": 4}, "tcbDate": testTime.Format(time.RFC3339), "tcbStatus": "UpToDate"}}}
	c := &Collateral{PCKCRLIssuerChain: chain(n.ca), TCBInfoIssuerChain: chain(n.signer), QEIdentityIssuerChain: chain(n.signer),
		RootCACRL: n.crl(t, n.root, n.rootKey), PCKCRL: n.crl(t, n.ca, n.caKey, n.revokedPCK...)}
	c.TCBInfo, c.TCBInfoSignature = signed(n.tcb)
	c.QEIdentity, c.QEIdentitySignature = signed(qe)
	return c
}

func (n *intel) crl(t testing.TB, issuer *x509.Certificate, k *ecdsa.PrivateKey, serials ...int64) string {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: n.crlAt, NextUpdate: testTime.AddDate(0, 1, 0)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: testTime})
	}
	der, err := x509.CreateRevocationList(rand.Reader, l, issuer, k)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(der)
}

func signP256(t testing.TB, k *ecdsa.PrivateKey, msg []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(msg)
	r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	var sig [64]byte
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return sig[:]
}

// quote is a quote of version 4 with the given TD report body.
func (n *intel) quote(t testing.TB, body []byte) []byte {
	t.Helper()
	le := binary.LittleEndian
	header := make([]byte, tdHeaderSize)
	le.PutUint16(header, 4)
	le.PutUint16(header[2:], tdAttestationKey)
	le.PutUint32(header[4:], tdTEEType)
	vendor, err := hex.DecodeString(intelQEVendor)
	if err != nil {
		t.Fatal(err)
	}
	copy(header[12:], vendor)
	ak := ecKey(t)
	point, err := ak.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	qe := make([]byte, qeReportSize)
	copy(qe[128:], bytes.Repeat([]byte{0xab}, 32))
	le.PutUint16(qe[256:], 2)
	le.PutUint16(qe[258:], 4)
	sum := sha256.Sum256(point[1:]) // no QE authentication data
	copy(qe[320:], sum[:])
	var chain []byte
	for _, c := range []*x509.Certificate{n.pck, n.ca, n.root} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	cert := append(append(qe, signP256(t, n.pckKey, qe)...), 0, 0)
	cert = le.AppendUint16(cert, tdCertPCKChain)
	cert = append(le.AppendUint32(cert, uint32(len(chain))), chain...)
	signed := append(header, body...)
	auth := append(signP256(t, ak, signed), point[1:]...)
	auth = le.AppendUint16(auth, tdCertQEReport)
	auth = append(le.AppendUint32(auth, uint32(len(cert))), cert...)
	return append(le.AppendUint32(signed, uint32(len(auth))), auth...)
}

// tdBody is a TD report of TDX 1.0 with MRTD 3e 00..., RTMR i filled with i+1
// but the last, and the given report data.
func tdBody(reportData []byte) []byte {
	b := make([]byte, tdBodySize)
	for i := range 16 {
		b[i] = 2 // TEE_TCB_SVN
	}
	b[1] = 0 // no module identity of its own
	b[128] = 0xe7
	b[136] = 0x3e
	for i := range 3 {
		copy(b[328+48*i:], bytes.Repeat([]byte{byte(i + 1)}, 48))
	}
	copy(b[520:], reportData)
	return b
}

// testRTMRs registers what tdBody has.
func testRTMRs() map[string]string {
	m := map[string]string{}
	for i := range 3 {
		m[fmt.Sprint(i)] = strings.Repeat(fmt.Sprintf("%02x", i+1), 48)
	}
	return m
}
