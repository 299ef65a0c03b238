package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/verify/trust"

	"github.com/ccrun/ccrun/cmd/face"
)

// TestCertsChains: AMD's own published chains, which need no vectors, over an
// air gap: imported, shown with their ends, exported to the same bytes twice,
// imported again. A look-alike root gets in nowhere.
func TestCertsChains(t *testing.T) {
	in, cache, other := t.TempDir(), t.TempDir(), t.TempDir()
	for name, b := range map[string][]byte{
		"milan.pem": trust.AskArkMilanVcekBytes, "milan-vlek.pem": trust.AskArkMilanVlekBytes, "genoa.pem": trust.AskArkGenoaVcekBytes,
		"genoa-vlek.pem": trust.AskArkGenoaVlekBytes, "turin.pem": trust.AskArkTurinVcekBytes, "turin-vlek.pem": trust.AskArkTurinVlekBytes,
	} {
		if err := os.WriteFile(filepath.Join(in, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mustCerts(t, "certs", "import", "--dir", cache, in)
	type row struct{ Kind, Product, State, SHA256 string }
	list := func(dir string) (rows []row) {
		if err := json.Unmarshal([]byte(mustCerts(t, "certs", "ls", "--format", "json", "--dir", dir)), &rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rows, count := list(cache), map[string]int{}
	for _, r := range rows {
		if count[r.Kind+" "+r.Product]++; r.State == "" || r.State == "expired" || len(r.SHA256) != 64 {
			t.Errorf("row %+v", r)
		}
	}
	for _, product := range []string{"Milan", "Genoa", "Turin"} {
		if count["ark "+product] != 1 || count["ask "+product]+count["asvk "+product] != 2 {
			t.Errorf("%s: %v", product, count)
		}
	}
	var archives [2][]byte
	for i := range archives {
		name := filepath.Join(t.TempDir(), "e.tar")
		mustCerts(t, "certs", "export", "--dir", cache, name)
		var err error
		if archives[i], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
		mustCerts(t, "certs", "import", "--dir", other, name)
	}
	if !bytes.Equal(archives[0], archives[1]) || len(list(other)) != len(rows) {
		t.Errorf("%d rows, imported %d; the archives are equal: %v", len(rows), len(list(other)), bytes.Equal(archives[0], archives[1]))
	}
	fake := write(t, lookalikeARK(t))
	if code, out, _ := runCerts(t, "certs", "import", "--dir", other, fake); code != face.Failed || !strings.Contains(out, "refused") || len(list(other)) != len(rows) {
		t.Errorf("look-alike root: exit %d, %s", code, out)
	}
}

// lookalikeARK has the name of Milan's ARK and another key.
func lookalikeARK(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(bytes.TrimSpace(trust.AskArkMilanVcekBytes[bytes.LastIndex(trust.AskArkMilanVcekBytes, []byte("-----BEGIN")):]))
	ark, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), RawSubject: ark.RawSubject, Subject: pkix.Name{}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(9, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SignatureAlgorithm: x509.SHA384WithRSAPSS}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
