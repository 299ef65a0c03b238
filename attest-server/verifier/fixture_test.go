package verifier

import (
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
	return newVendorOf(t, fmc, k[keys[0]], k[keys[1]], k[keys[2]])
}

func newVendorOf(t testing.TB, fmc bool, ark, ask, asvk *rsa.PrivateKey) *vendor {
	t.Helper()
	v := &vendor{ark: ark, ask: ask, asvk: asvk,
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
		put([]byte(v.line.hardwareID(c.id[:])), "", 4)
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

// withSerial is crl with one more entry. Its signature is not looked at again.
func withSerial(crl *x509.RevocationList, c *x509.Certificate) *x509.RevocationList {
	l := *crl
	l.RevokedCertificateEntries = append(l.RevokedCertificateEntries[:len(l.RevokedCertificateEntries):len(l.RevokedCertificateEntries)],
		x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: testTime})
	return &l
}

// cache is a Cache under the vendor's roots.
func (v *vendor) cache(t testing.TB, dir string) *Cache {
	t.Helper()
	c, err := OpenCache(CacheOptions{Dir: dir, Lines: []ProductLine{v.line}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
