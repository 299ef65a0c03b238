package verifiertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Time is when everything self-made is valid.
var Time = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// AMD is a self-made AMD: ARK, ASK and ASVK of one product line.
type AMD struct {
	Name                    string // Milan, or Turin
	FMC                     bool   // as of Turin: TCBs with an FMC, short chip ids
	Family                  byte   // of its processors' CPUIDs
	ARK, ASK, ASVK          *x509.Certificate
	ARKKey, ASKKey, ASVKKey *rsa.PrivateKey
}

// keysPEM is four private keys that nobody trusts: making one takes a tenth of a
// second.
//
//go:embed keys.pem
var keysPEM []byte

// RSAKeys are four keys of 2048 bits, the same in every run.
var RSAKeys = sync.OnceValue(func() (keys []*rsa.PrivateKey) {
	for block, rest := pem.Decode(keysPEM); block != nil; block, rest = pem.Decode(rest) {
		k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k.(*rsa.PrivateKey))
	}
	return keys
})

// NewAMD makes a product line named Milan, or Turin if fmc is set. Other keys,
// by their number in RSAKeys, give the same names to a look-alike.
func NewAMD(t testing.TB, fmc bool, keys ...int) *AMD {
	t.Helper()
	if keys == nil {
		keys = []int{0, 1, 2}
	}
	k := RSAKeys()
	return NewAMDOf(t, fmc, k[keys[0]], k[keys[1]], k[keys[2]])
}

// NewAMDOf is NewAMD with the keys given.
func NewAMDOf(t testing.TB, fmc bool, ark, ask, asvk *rsa.PrivateKey) *AMD {
	t.Helper()
	v := &AMD{Name: "Milan", Family: 0x19, ARKKey: ark, ASKKey: ask, ASVKKey: asvk}
	if fmc {
		v.Name, v.Family, v.FMC = "Turin", 0x1a, true
	}
	v.ARK = v.ca(t, "ARK-"+v.Name, 1, ark, nil)
	v.ASK = v.ca(t, "SEV-"+v.Name, 2, ask, v.ARK)
	v.ASVK = v.ca(t, "SEV-VLEK-"+v.Name, 3, asvk, v.ARK)
	return v
}

func (v *AMD) ca(t testing.TB, name string, serial int64, k *rsa.PrivateKey, issuer *x509.Certificate) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: Time.AddDate(-5, 0, 0), NotAfter: Time.AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SignatureAlgorithm: x509.SHA384WithRSAPSS}
	if issuer == nil {
		issuer = c
	}
	return sign(t, c, issuer, &k.PublicKey, v.ARKKey)
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

// Chip is one processor: its id and TCB, and the key for that TCB.
type Chip struct {
	ID  [64]byte
	TCB kbs.SNPTCB
	Key *ecdsa.PrivateKey
}

// NewChip makes a processor, of Turin if fmc is set.
func NewChip(t testing.TB, fmc bool) *Chip {
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &Chip{TCB: kbs.SNPTCB{Bootloader: 4, TEE: 1, SNP: 30, Microcode: 223}, Key: k} // no advisory is open
	n := 64
	if fmc {
		n, c.TCB.FMC = 8, 2
	}
	for i := range n {
		c.ID[i] = byte(i + 1)
	}
	return c
}

// Rekeyed is the same chip with another key.
func (c *Chip) Rekeyed(t testing.TB) *Chip {
	other := *c
	other.Key = NewChip(t, false).Key
	return &other
}

// VEKOptions changes what AMD.VEK writes.
type VEKOptions struct {
	VLEK      bool
	Signer    *x509.Certificate // other issuer
	SignerKey *rsa.PrivateKey
	Edit      func(*x509.Certificate)
}

// VEK is the certificate that the vendor's KDS would give for c.
func (v *AMD) VEK(t testing.TB, c *Chip, o VEKOptions) []byte {
	t.Helper()
	name, issuer, key := "SEV-VCEK", v.ASK, v.ASKKey
	if o.VLEK {
		name, issuer, key = "SEV-VLEK", v.ASVK, v.ASVKKey
	}
	if o.Signer != nil {
		issuer, key = o.Signer, o.SignerKey
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: name}, NotBefore: Time.AddDate(-1, 0, 0),
		NotAfter: Time.AddDate(6, 0, 0), SignatureAlgorithm: x509.SHA384WithRSAPSS}
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
	put(v.Name+"-B0", "ia5", 2)
	put(int(c.TCB.Bootloader), "", 3, 1)
	put(int(c.TCB.TEE), "", 3, 2)
	put(int(c.TCB.SNP), "", 3, 3)
	put(0, "", 3, 5)
	put(int(c.TCB.Microcode), "", 3, 8)
	if v.FMC {
		put(int(c.TCB.FMC), "", 3, 9)
	}
	if o.VLEK {
		put("a cloud", "ia5", 5)
	} else {
		id := c.ID[:]
		if v.FMC {
			id = id[:8]
		}
		put(id, "", 4)
	}
	if o.Edit != nil {
		o.Edit(cert)
	}
	return sign(t, cert, issuer, &c.Key.PublicKey, key).Raw
}

// Report is a report of version 5 by c, changed by edit, then signed.
func (v *AMD) Report(t testing.TB, c *Chip, edit func(raw []byte)) []byte {
	t.Helper()
	raw := make([]byte, reportBytes)
	le := binary.LittleEndian
	le.PutUint32(raw, 5)
	le.PutUint64(raw[0x08:], 0x30000)
	le.PutUint32(raw[0x34:], 1)
	raw[0x50], raw[0x90] = 0xda, 0x3e // report data, measurement
	for i := 0x160; i < 0x180; i++ {
		raw[i] = 0xff
	}
	raw[0x188], raw[0x189], raw[0x18a] = v.Family, 1, 1 // Milan B1
	if v.FMC {
		raw[0x189] = 2 // Turin C1
	}
	le.PutUint64(raw[0x1f8:], Mitigations)
	le.PutUint64(raw[0x200:], Mitigations)
	copy(raw[0x1a0:], c.ID[:])
	tcb := []byte{c.TCB.Bootloader, c.TCB.TEE, 0, 0, 0, 0, c.TCB.SNP, c.TCB.Microcode}
	if v.FMC {
		tcb = []byte{c.TCB.FMC, c.TCB.Bootloader, c.TCB.TEE, c.TCB.SNP, 0, 0, 0, c.TCB.Microcode}
	}
	for _, off := range []int{0x38, 0x180, 0x1e0, 0x1f0} {
		copy(raw[off:], tcb)
	}
	copy(raw[0x1e8:], []byte{40, 55, 1, 0, 40, 55, 1})
	if edit != nil {
		edit(raw)
	}
	SignReport(t, c, raw)
	return raw
}

// Mitigations is both mitigation vectors of a Report.
const Mitigations = 0x1f

// SignReport signs a report as c would.
func SignReport(t testing.TB, c *Chip, raw []byte) {
	t.Helper()
	sum := sha512.Sum384(abi.SignedComponent(raw))
	r, s, err := ecdsa.Sign(rand.Reader, c.Key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	if err := abi.SetSignature(r, s, raw); err != nil {
		t.Fatal(err)
	}
}

// CRL is a CRL of issuer that lists the serials.
func (v *AMD) CRL(t testing.TB, issuer *x509.Certificate, k *rsa.PrivateKey, next time.Time, serials ...int64) *x509.RevocationList {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: Time.AddDate(0, -1, 0), NextUpdate: next, SignatureAlgorithm: x509.SHA384WithRSAPSS}
	for _, s := range serials {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: Time.AddDate(0, -2, 0)})
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
