package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-sev-guest/verify/trust"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// runCerts runs the program in this process.
func runCerts(t *testing.T, a ...string) (code int, stdout, stderr string) {
	t.Helper()
	app := newApp()
	var out, errs bytes.Buffer
	app.Writer, app.ErrWriter = &out, &errs
	code = program.Run(t.Context(), app, append([]string{"ccrun"}, a...))
	return code, out.String(), errs.String()
}

func mustCerts(t *testing.T, a ...string) string {
	t.Helper()
	code, out, errs := runCerts(t, a...)
	if code != 0 {
		t.Fatalf("ccrun %s: exit %d\n%s%s", strings.Join(a, " "), code, out, errs)
	}
	return out
}

// mirror answers as AMD's KDS and a PCCS, with real certificates.
func mirror(t *testing.T, dir string, asked *atomic.Int32) string {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var c tdx.Collateral
	if err := json.Unmarshal(read("tdx-v5-tdx15.collateral.json"), &c); err != nil {
		t.Fatal(err)
	}
	chain := func(s string) string { return strings.ReplaceAll(url.PathEscape(s), "%2B", "+") }
	turin := read("snp-turin-v5.vcek.der")
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var body []byte
		switch p := r.URL.Path; {
		case p == "/vcek/v1/Turin/3b42092f69c656d3" && r.URL.RawQuery == "fmcSPL=00&blSPL=01&teeSPL=00&snpSPL=02&ucodeSPL=71":
			body = turin
		case p == "/vcek/v1/Turin/cert_chain":
			body = trust.AskArkTurinVcekBytes
		case p == "/vcek/v1/Turin/crl":
			w.WriteHeader(http.StatusTooManyRequests)
			return
		case p == "/sgx/certification/v4/rootcacrl":
			body = []byte(c.RootCACRL)
		case p == "/sgx/certification/v4/pckcrl":
			w.Header().Set("SGX-PCK-CRL-Issuer-Chain", chain(c.PCKCRLIssuerChain))
			body = []byte(c.PCKCRL)
		case p == "/tdx/certification/v4/tcb" && r.URL.RawQuery == "fmspc=90c06f000000":
			w.Header().Set("TCB-Info-Issuer-Chain", chain(c.TCBInfoIssuerChain))
			body = []byte(`{"tcbInfo":` + c.TCBInfo + `,"signature":"` + c.TCBInfoSignature + `"}`)
		case p == "/tdx/certification/v4/qe/identity":
			w.Header().Set("SGX-Enclave-Identity-Issuer-Chain", chain(c.QEIdentityIssuerChain))
			body = []byte(`{"enclaveIdentity":` + c.QEIdentity + `,"signature":"` + c.QEIdentitySignature + `"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		if _, err := w.Write(body); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	t.Setenv("TEST_CA", write(t, string(ca)))
	return srv.URL
}

// TestCertsFetch: a TD quote's collateral and a Turin chip's VCEK come from
// mirrors, stay, and are not fetched again; throttling is said as such.
func TestCertsFetch(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	var asked atomic.Int32
	at := mirror(t, dir, &asked)
	cache := t.TempDir()
	common := []string{"certs", "fetch", "--dir", cache, "--kds-url", at, "--pcs-url", at, "--ca", os.Getenv("TEST_CA")}
	code, out, errs := runCerts(t, append(common, "--evidence", filepath.Join(dir, "tdx-v5-tdx15.quote.bin"))...)
	// The mirror's collateral is of 2026; from its end on, the mirror is a stale one.
	if stale := strings.Contains(errs, "got no newer than what has expired: collateral of 90c06f000000 platform"); !strings.Contains(out, "90c06f000000") || asked.Swap(0) != 4 || (code == face.Failed) != stale {
		t.Errorf("TDX: exit %d, %s%s", code, out, errs)
	}
	code, _, errs = runCerts(t, append(common, "--evidence", filepath.Join(dir, "snp-turin-v5.report.bin"))...)
	if code != face.Failed {
		t.Errorf("throttled: exit %d, %s", code, errs)
	}
	out = mustCerts(t, "certs", "ls", "--dir", cache)
	for _, want := range []string{"vcek", "ark", "ask", "collateral", "3b42092f69c656d3"} {
		if !strings.Contains(out, want) {
			t.Errorf("ls does not show %s:\n%s", want, out)
		}
	}
	if n := asked.Swap(0); n != 3 {
		t.Errorf("asked %d times for VCEK, chain and CRL", n)
	}
	runCerts(t, append(common, "--evidence", filepath.Join(dir, "snp-turin-v5.report.bin"))...)
	if n := asked.Swap(0); n != 2 {
		t.Errorf("asked %d times with the VCEK cached, expected chain and CRL", n)
	}
	if code, _, _ = runCerts(t, append(common, "--product", "Turin", "--chip-id", "0000000000000001", "--tcb", "fmc=0,bootloader=1,tee=0,snp=2,microcode=71")...); code != face.Failed {
		t.Errorf("unknown chip: exit %d", code)
	}
	for _, bad := range [][]string{
		{"--product", "Milano"}, {"--chip-id", "00"}, {"--fmspc", "xyz"}, {"--fmspc", "90c06f000000", "--pck-ca", "root"},
		{"--product", "Turin", "--chip-id", "0000000000000001", "--tcb", "bootloader=1,tee=0,snp=2,microcode=71"},
		{"--product", "Milan", "--chip-id", strings.Repeat("01", 64), "--tcb", "bootloader=1,bootloader=1,tee=0,snp=2,microcode=71"},
	} {
		if code, _, errs := runCerts(t, append(common, bad...)...); code != face.Misused {
			t.Errorf("%v: exit %d, %s", bad, code, errs)
		}
	}
	if code, _, _ = runCerts(t, "certs", "fetch", "--dir", t.TempDir(), "--kds-url", at); code != face.Misused {
		t.Errorf("fetch of nothing into an empty cache: exit %d", code)
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("mistakes of usage asked the mirror %d times", n-1)
	}
}

// TestFetchFromStaleMirror: what was fetched and has expired is an error, so that
// a timer notices, and what was not asked for is none.
func TestFetchFromStaleMirror(t *testing.T) {
	n := vendortest.NewIntel(t)
	cache, err := endorsements.OpenCache(endorsements.CacheOptions{IntelRoot: n.Root})
	if err != nil {
		t.Fatal(err)
	}
	e, _, err := cache.Add(n.Collateral(t))
	if err != nil {
		t.Fatal(err)
	}
	fmspc, ca, _ := strings.Cut(e.Name(), " ")
	its, another := endorsements.Subject{FMSPC: strings.ToUpper(fmspc), CA: ca}, endorsements.Subject{FMSPC: "000000000001", CA: ca}
	for _, x := range []struct {
		at     time.Time
		wanted []endorsements.Subject
		stale  bool
	}{
		{e.Expires.Add(-time.Second), nil, false},
		{e.Expires.Add(time.Second), nil, true},
		{e.Expires.Add(time.Second), []endorsements.Subject{another, its}, true},
		{e.Expires.Add(time.Second), []endorsements.Subject{another}, false},
		{e.Expires.Add(time.Second), []endorsements.Subject{{EndorsementKey: snp.EndorsementKey{Product: "Milan"}}}, false},
	} {
		err := expired(cache, x.wanted, x.at)
		if (err != nil) != x.stale || x.stale && (hint.Of(err) == "" || !strings.Contains(err.Error(), e.Name())) {
			t.Errorf("at %s, wanted %v: %v", x.at, x.wanted, err)
		}
	}
}

// TestCertsImport: what was carried over an air gap verifies like what it was
// made from; what cannot be verified is refused, and says so.
func TestCertsImport(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	cache, other, archive := t.TempDir(), filepath.Join(t.TempDir(), "new"), filepath.Join(t.TempDir(), "e.tar")
	code, out, _ := runCerts(t, "certs", "import", "--dir", cache, dir)
	if code != face.Failed || !strings.Contains(out, "snp-turin-v5.report.bin: refused: neither") || !strings.Contains(out, "snp-turin-v5.vcek.der: added") {
		t.Errorf("exit %d\n%s", code, out)
	}
	mustCerts(t, "certs", "import", "--dir", cache, "--ignore-refused", dir)
	mustCerts(t, "certs", "export", "--dir", cache, archive)
	mustCerts(t, "certs", "import", "--dir", other, archive)
	var rows []struct{ Kind, State, SHA256 string }
	if err := json.Unmarshal([]byte(mustCerts(t, "certs", "ls", "--format", "json", "--dir", other)), &rows); err != nil {
		t.Fatal(err)
	}
	expired := 0
	for _, r := range rows {
		if _, err := os.Stat(filepath.Join(other, r.SHA256+"."+r.Kind+".der")); err != nil && r.Kind != "collateral" {
			t.Error(err)
		}
		if r.State == "expired" {
			expired++
		}
	}
	if len(rows) != 12 || expired != 3 {
		t.Errorf("%d rows, %d expired, expected 12 and the collateral", len(rows), expired)
	}
	for name, at := range map[string]string{
		"snp-genoa-v5.report.bin": "2025-11-12T12:00:00Z", "tdx-v4.quote.bin": "2025-06-20T10:16:03Z", "tdx-v5-tdx15.quote.bin": "2026-02-02T14:49:26Z",
		"snp-turin-v5.report.bin": "2026-01-01T00:00:00Z", "azsnp-genoa-v3.original-evidence.json": "2026-01-01T00:00:00Z",
	} {
		var results []string
		for _, from := range []string{dir, other} {
			_, r, _ := runVerify(t, "--evidence", filepath.Join(dir, name), "--endorsements", from, "--at", at)
			results = append(results, fmt.Sprint(r.Rules))
		}
		if results[0] != results[1] || !strings.Contains(results[0], "{signature ") {
			t.Errorf("%s: from the vectors\n%s\nfrom the cache\n%s", name, results[0], results[1])
		}
	}
	if code, _, _ := runCerts(t, "certs", "export", "--dir", t.TempDir(), archive); code != face.Failed {
		t.Errorf("export of nothing: exit %d", code)
	}
	if code, _, _ := runCerts(t, "certs", "import", "--dir", cache, filepath.Join(dir, "none")); code != face.Failed {
		t.Errorf("import of a missing file: exit %d", code)
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]string{
		-time.Second: "expired", time.Minute: "in 0 hours", 5 * time.Hour: "in 5 hours", 25 * time.Hour: "in 1 day", 72 * time.Hour: "in 3 days",
	} {
		if got := expiry(now.Add(left), now); got != want {
			t.Errorf("%s left: %s, expected %s", left, got, want)
		}
	}
}
