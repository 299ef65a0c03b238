// Package verifiertest makes TDs, with the Intel that vouches for them, and
// Azure's vTPMs, for tests. Nothing of it is trusted by a real root.
package verifiertest

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

// Intel is a self-made Intel: root, platform CA, TCB signer and one machine.
type Intel struct {
	Root, CA, PCK, signer         *x509.Certificate
	rootKey, caKey, pckKey, tcKey *ecdsa.PrivateKey
	RevokedPCK                    []int64                       // serials for the PCK CRL
	CRLAt                         time.Time                     // of its CRLs
	At                            time.Time                     // when everything is valid
	TCB, QE                       map[string]any                // TCB info and QE identity, before they are signed
	EditQuote                     func(header, qeReport []byte) // before they are signed; may be nil
}

// The one machine's FMSPC, and the serial number of its PCK certificate.
const (
	FMSPC     = "00a06d000000"
	PCKSerial = 77
)

func ecKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// NewIntel makes an Intel whose documents are valid at the given time, five
// years for certificates and a month for the rest.
func NewIntel(t testing.TB, at time.Time) *Intel {
	t.Helper()
	n := &Intel{At: at, rootKey: ecKey(t), caKey: ecKey(t), pckKey: ecKey(t), tcKey: ecKey(t)}
	n.Root = n.cert(t, "Intel SGX Root CA", 1, true, nil, &n.rootKey.PublicKey, n.rootKey)
	n.CA = n.cert(t, "Intel SGX PCK Platform CA", 2, true, n.Root, &n.caKey.PublicKey, n.rootKey)
	n.signer = n.cert(t, "Intel SGX TCB Signing", 3, false, n.Root, &n.tcKey.PublicKey, n.rootKey)
	n.PCK = n.cert(t, "Intel SGX PCK Certificate", PCKSerial, false, n.CA, &n.pckKey.PublicKey, n.caKey,
		pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, Value: sgxExtension(t)})
	n.TCB, n.QE, n.CRLAt = n.TCBInfo(), n.QEIdentity(), n.At.AddDate(0, 0, -1)
	return n
}

func (n *Intel) cert(t testing.TB, name string, serial int64, ca bool, issuer *x509.Certificate, pub *ecdsa.PublicKey, k *ecdsa.PrivateKey, extra ...pkix.Extension) *x509.Certificate {
	t.Helper()
	usage := x509.KeyUsageDigitalSignature
	if ca {
		usage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	}
	id := sha256.Sum256([]byte(name))
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: n.At.AddDate(-1, 0, 0),
		NotAfter: n.At.AddDate(5, 0, 0), IsCA: ca, BasicConstraintsValid: true, KeyUsage: usage, SubjectKeyId: id[:20],
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
	fmspc, err := hex.DecodeString(FMSPC)
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

// TCBInfo is TCB info for its machine, whose one level is UpToDate.
func (n *Intel) TCBInfo() map[string]any {
	components, tdx := make([]map[string]int, 16), make([]map[string]int, 16)
	for i := range components {
		components[i], tdx[i] = map[string]int{"svn": 2}, map[string]int{"svn": 2}
	}
	tdx[1] = map[string]int{"svn": 0} // as in Body
	return map[string]any{"id": "TDX", "version": 3, "issueDate": n.At.AddDate(0, 0, -1).Format(time.RFC3339), "nextUpdate": n.At.AddDate(0, 1, 0).Format(time.RFC3339),
		"fmspc": FMSPC, "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 20,
		"tdxModule": map[string]string{"mrsigner": strings.Repeat("0", 96), "attributes": strings.Repeat("0", 16), "attributesMask": strings.Repeat("f", 16)},
		"tcbLevels": []map[string]any{{"tcb": map[string]any{"sgxtcbcomponents": components, "pcesvn": 11, "tdxtcbcomponents": tdx},
			"tcbDate": n.At.Format(time.RFC3339), "tcbStatus": "UpToDate"}}}
}

// QEIdentity is the identity of the quoting enclave that Quote uses.
func (n *Intel) QEIdentity() map[string]any {
	return map[string]any{"id": "TD_QE", "version": 2, "issueDate": n.At.Format(time.RFC3339), "nextUpdate": n.At.AddDate(0, 1, 0).Format(time.RFC3339), "tcbEvaluationDataNumber": 20,
		"miscselect": "00000000", "miscselectMask": "ffffffff", "attributes": strings.Repeat("0", 32), "attributesMask": strings.Repeat("f", 32),
		"mrsigner": strings.Repeat("ab", 32), "isvprodid": 2,
		"tcbLevels": []map[string]any{{"tcb": map[string]int{"isvsvn": 4}, "tcbDate": n.At.Format(time.RFC3339), "tcbStatus": "UpToDate"}}}
}

// Collateral is what this Intel's PCS would answer, as a *.collateral.json.
func (n *Intel) Collateral(t testing.TB) []byte {
	t.Helper()
	chain := func(c *x509.Certificate) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Root.Raw}))
	}
	signed := func(v any) (string, string) {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return string(b), hex.EncodeToString(signP256(t, n.tcKey, b))
	}
	c := map[string]string{"pck_crl_issuer_chain": chain(n.CA), "tcb_info_issuer_chain": chain(n.signer), "qe_identity_issuer_chain": chain(n.signer),
		"root_ca_crl": n.crl(t, n.Root, n.rootKey), "pck_crl": n.crl(t, n.CA, n.caKey, n.RevokedPCK...)}
	c["tcb_info"], c["tcb_info_signature"] = signed(n.TCB)
	c["qe_identity"], c["qe_identity_signature"] = signed(n.QE)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (n *Intel) crl(t testing.TB, issuer *x509.Certificate, k *ecdsa.PrivateKey, serials ...int64) string {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: n.CRLAt, NextUpdate: n.At.AddDate(0, 1, 0)}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: n.At})
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

// Quote is a quote of version 4 of a TD report of TDX 1.0.
func (n *Intel) Quote(t testing.TB, body []byte) []byte { return n.quote(t, 4, body) }

// QuoteV5 is a quote of version 5, whose body is of TDX 1.0 or, if it is
// longer, of TDX 1.5.
func (n *Intel) QuoteV5(t testing.TB, body []byte) []byte {
	kind := uint16(2)
	if len(body) > BodyBytes {
		kind = 3
	}
	described := binary.LittleEndian.AppendUint16(nil, kind)
	described = binary.LittleEndian.AppendUint32(described, uint32(len(body)))
	return n.quote(t, 5, append(described, body...))
}

func (n *Intel) quote(t testing.TB, version uint16, body []byte) []byte {
	t.Helper()
	le := binary.LittleEndian
	header := make([]byte, 48)
	le.PutUint16(header, version)
	le.PutUint16(header[2:], 2)    // ECDSA-256 with P-256
	le.PutUint32(header[4:], 0x81) // TDX
	copy(header[12:], "\x93\x9a\x72\x33\xf7\x9c\x4c\xa9\x94\x0a\x0d\xb3\x95\x7f\x06\x07")
	ak := ecKey(t)
	point, err := ak.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	qe := make([]byte, 384)
	copy(qe[128:], bytes.Repeat([]byte{0xab}, 32))
	le.PutUint16(qe[256:], 2)
	le.PutUint16(qe[258:], 4)
	sum := sha256.Sum256(point[1:]) // no QE authentication data
	copy(qe[320:], sum[:])
	if n.EditQuote != nil {
		n.EditQuote(header, qe)
	}
	var chain []byte
	for _, c := range []*x509.Certificate{n.PCK, n.CA, n.Root} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	cert := append(append(qe, signP256(t, n.pckKey, qe)...), 0, 0)
	cert = le.AppendUint16(cert, 5) // PCK certificate chain
	cert = append(le.AppendUint32(cert, uint32(len(chain))), chain...)
	signed := append(header, body...)
	auth := append(signP256(t, ak, signed), point[1:]...)
	auth = le.AppendUint16(auth, 6) // QE report
	auth = append(le.AppendUint32(auth, uint32(len(cert))), cert...)
	return append(le.AppendUint32(signed, uint32(len(auth))), auth...)
}

// BodyBytes is the size of a TD report of TDX 1.0. That of TDX 1.5 has
// TEE_TCB_SVN_2 and MRSERVICETD after it, 64 bytes.
const BodyBytes = 584

// Body is a TD report of TDX 1.0 with MRTD 3e 00..., RTMR i filled with i+1
// but the last, and the given report data.
func Body(reportData []byte) []byte {
	b := make([]byte, BodyBytes)
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

// RTMRs registers what Body has.
func RTMRs() map[string]string {
	m := map[string]string{}
	for i := range 3 {
		m[fmt.Sprint(i)] = strings.Repeat(fmt.Sprintf("%02x", i+1), 48)
	}
	return m
}
