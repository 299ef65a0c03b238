package kbs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"
)

// party is a key with its certificate.
type party struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newParty makes a certificate, signed by issuer or, if nil, by itself.
func newParty(t *testing.T, issuer *party, change func(*x509.Certificate)) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return certify(t, key, issuer, change)
}

func certify(t *testing.T, key *ecdsa.PrivateKey, issuer *party, change func(*x509.Certificate)) *party {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	change(c)
	p := &party{key: key}
	if issuer == nil {
		issuer = &party{cert: c, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer.cert, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	if p.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return p
}

func isCA(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.KeyUsage = name, true, x509.KeyUsageCertSign
	}
}

func isServer(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, n := range names {
			if ip := net.ParseIP(n); ip != nil {
				c.IPAddresses = append(c.IPAddresses, ip)
			} else {
				c.DNSNames = append(c.DNSNames, n)
			}
		}
	}
}

func chain(ps ...*party) (certs []*x509.Certificate) {
	for _, p := range ps {
		certs = append(certs, p.cert)
	}
	return certs
}

func TestPins(t *testing.T) {
	ca := newParty(t, nil, isCA("ca"))
	otherCA := newParty(t, nil, isCA("ca")) // same name, another key
	middle := newParty(t, ca, isCA("middle"))
	leaf := newParty(t, ca, isServer("kbs.example", "192.0.2.7"))
	deep := newParty(t, middle, isServer("kbs.example"))
	forged := newParty(t, otherCA, isServer("kbs.example"))
	longAgo := newParty(t, ca, func(c *x509.Certificate) {
		isServer("kbs.example")(c)
		c.NotAfter = time.Now().Add(-time.Minute)
	})
	validAt := func(c *x509.Certificate, from, to time.Duration) {
		c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to)
	}
	youngCA := newParty(t, nil, func(c *x509.Certificate) {
		isCA("young")(c)
		validAt(c, time.Hour, 2*time.Hour)
	})
	older := newParty(t, youngCA, isServer("kbs.example"))
	spent := newParty(t, ca, func(c *x509.Certificate) {
		isCA("spent")(c)
		validAt(c, -9*time.Hour, -8*time.Hour)
	})
	outlived := newParty(t, spent, isServer("kbs.example"))
	client := newParty(t, ca, func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"kbs.example"}, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	})
	underLeaf := newParty(t, leaf, isServer("kbs.example"))
	selfSigned := newParty(t, nil, isServer("elsewhere"))
	// Whoever holds no key can still wrap a pinned public key in a CA certificate of his own.
	impostor := newParty(t, nil, isCA("ca"))
	impostor.cert = func() *x509.Certificate {
		c := *ca.cert
		der, err := x509.CreateCertificate(rand.Reader, &c, otherCA.cert, ca.key.Public(), otherCA.key)
		if err != nil {
			t.Fatal(err)
		}
		p, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}()

	for name, x := range map[string]struct {
		pin   *party
		chain []*x509.Certificate
		host  string
		ok    bool
	}{
		"leaf pinned":                           {selfSigned, chain(selfSigned), "kbs.example", true},
		"leaf of a chain pinned":                {leaf, chain(leaf, ca), "anything", true},
		"CA pinned":                             {ca, chain(leaf, ca), "kbs.example", true},
		"CA pinned, by address":                 {ca, chain(leaf, ca), "192.0.2.7", true},
		"CA pinned, expired leaf":               {ca, chain(longAgo, ca), "kbs.example", true},
		"CA pinned, younger than its leaf":      {youngCA, chain(older, youngCA), "kbs.example", true},
		"CA pinned, expired intermediate":       {ca, chain(outlived, spent, ca), "kbs.example", true},
		"CA pinned, through an intermediate":    {ca, chain(deep, middle, ca), "kbs.example", true},
		"intermediate pinned":                   {middle, chain(deep, middle), "kbs.example", true},
		"CA pinned, not presented":              {ca, chain(leaf), "kbs.example", false},
		"CA pinned, other host":                 {ca, chain(leaf, ca), "evil.example", false},
		"CA pinned, other address":              {ca, chain(leaf, ca), "192.0.2.8", false},
		"CA pinned, no host":                    {ca, chain(leaf, ca), "", false},
		"CA pinned, leaf of another CA":         {ca, chain(forged, ca), "kbs.example", false},
		"CA pinned, both CAs presented":         {ca, chain(forged, otherCA, ca), "kbs.example", false},
		"CA pinned, intermediate missing":       {ca, chain(deep, ca), "kbs.example", false},
		"CA pinned, client certificate":         {ca, chain(client, ca), "kbs.example", false},
		"CA pinned, leaf as CA":                 {ca, chain(underLeaf, leaf, ca), "kbs.example", false},
		"leaf pinned, acting as CA":             {leaf, chain(underLeaf, leaf), "kbs.example", false},
		"pinned key wrapped by another CA":      {ca, chain(forged, impostor, otherCA), "kbs.example", false},
		"other key pinned":                      {otherCA, chain(leaf, ca), "kbs.example", false},
		"empty chain":                           {ca, nil, "kbs.example", false},
		"pinned leaf behind somebody else's":    {leaf, chain(forged, leaf), "kbs.example", false},
		"pinned self-signed leaf used as CA":    {selfSigned, chain(forged, selfSigned), "kbs.example", false},
		"CA itself as server, which is its key": {ca, chain(ca), "kbs.example", true},
	} {
		pins, err := ParsePins([]string{PinOf(x.pin.cert)})
		if err != nil {
			t.Fatal(err)
		}
		if err := pins.Verify(x.chain, x.host); (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Pins{}).Verify(chain(leaf, ca), "kbs.example"); !errors.Is(err, ErrUnpinned) {
		t.Errorf("zero Pins: %v", err)
	}
}

func TestParsePins(t *testing.T) {
	good := PinOf(newParty(t, nil, isServer("x")).cert)
	for name, list := range map[string][]string{
		"none": nil, "empty": {""}, "short": {good[:62]}, "long": {good + "00"}, "no hex": {"zz" + good[2:]}, "one bad": {good, "x"},
	} {
		if _, err := ParsePins(list); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
	if _, err := ParsePins([]string{good}); err != nil {
		t.Error(err)
	}
}

func TestPinsFromPEM(t *testing.T) {
	a, b := newParty(t, nil, isCA("a")), newParty(t, nil, isCA("b"))
	enc := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	both := append(enc("CERTIFICATE", a.cert.Raw), enc("CERTIFICATE", b.cert.Raw)...)
	pins, err := PinsFromPEM(both)
	if err != nil || len(pins) != 2 || pins[0] != PinOf(a.cert) || pins[1] != PinOf(b.cert) {
		t.Errorf("PinsFromPEM = %v, %v", pins, err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "key": enc("PRIVATE KEY", []byte{1}), "broken": enc("CERTIFICATE", a.cert.Raw[:40]),
		"key after certificate": append(enc("CERTIFICATE", a.cert.Raw), enc("EC PRIVATE KEY", []byte{1})...),
	} {
		if pins, err := PinsFromPEM(bad); err == nil {
			t.Errorf("%s: %v", name, pins)
		}
	}
}

func (p *party) tls(more ...*party) tls.Certificate {
	c := tls.Certificate{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}
	for _, m := range more {
		c.Certificate = append(c.Certificate, m.cert.Raw)
	}
	return c
}
