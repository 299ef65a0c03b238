package command

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

const (
	caLife   = 20 * 365 * 24 * time.Hour
	leafLife = 825 * 24 * time.Hour
	skew     = time.Hour // clocks of owners may be behind
)

// identity is a TLS identity as PEM files. Guests pin the CA's key, so that
// the server's own can be replaced without a new measurement; chain therefore
// holds the CA too: a guest finds there what it pinned.
type identity struct {
	ca, caKey        []byte
	chain, serverKey []byte
}

// newIdentity makes a CA and, under it, a certificate for names and localhost.
func newIdentity(names []string, now time.Time, random io.Reader) (identity, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return identity{}, fmt.Errorf("making CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "attest-server CA"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(caLife),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(random, template, template, caKey.Public(), caKey)
	if err != nil {
		return identity{}, fmt.Errorf("making CA certificate: %w", err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return identity{}, err
	}
	id := identity{ca: encode("CERTIFICATE", der)}
	if id.caKey, err = encodeKey(caKey); err != nil {
		return identity{}, err
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), random)
	if err != nil {
		return identity{}, fmt.Errorf("making server key: %w", err)
	}
	if id.serverKey, err = encodeKey(serverKey); err != nil {
		return identity{}, err
	}
	if id.chain, err = issue(ca, caKey, serverKey.Public(), withLocal(names), now, random); err != nil {
		return identity{}, err
	}
	return id, nil
}

// issue makes a server certificate for public and names under ca: leaf and CA,
// PEM.
func issue(ca *x509.Certificate, caKey crypto.Signer, public crypto.PublicKey, names []string, now time.Time, random io.Reader) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "attest-server"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(leafLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(random, template, ca, public, caKey)
	if err != nil {
		return nil, fmt.Errorf("making server certificate for %v: %w", names, err)
	}
	return slices.Concat(encode("CERTIFICATE", der), encode("CERTIFICATE", ca.Raw)), nil
}

// withLocal adds this machine to names.
func withLocal(names []string) []string {
	local := []string{"localhost", "127.0.0.1", "::1"}
	if h, err := os.Hostname(); err == nil && h != "" {
		local = append(local, h)
	}
	all := slices.Clone(names)
	for _, n := range local {
		if !slices.Contains(all, n) {
			all = append(all, n)
		}
	}
	return all
}

// checkNames refuses what no client would ever look for in a certificate. flag
// is where names are from.
func checkNames(flag string, names []string) error {
	for _, n := range names {
		ip, err := netip.ParseAddr(n)
		switch {
		case err == nil && ip.Zone() == "" && ip.String() == n:
		case err == nil:
			return face.Usagef("%s %q: expected an address in its usual form and without a zone: %s", flag, n, ip.WithZone(""))
		case !dnsName(n):
			return hint.With(face.Usagef("%s %q: expected a DNS name or an IP address", flag, n),
				"leave out scheme, port, path and brackets: keys.example.com, 192.0.2.7, 2001:db8::7")
		}
	}
	return nil
}

// dnsName is a host name as in RFC 1123, 2.1, in lower case, and not one of
// digits alone at its end, which is a spoilt address.
func dnsName(n string) bool {
	labels := strings.Split(n, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return len(n) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

func encode(kind string, der []byte) []byte {
	var b bytes.Buffer
	pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}) // a Buffer never fails
	return b.Bytes()
}

func encodeKey(k *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return encode("PRIVATE KEY", der), nil
}
