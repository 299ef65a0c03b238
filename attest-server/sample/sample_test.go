package sample

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	"github.com/google/go-sev-guest/verify"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
)

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// platforms makes two, once: RSA keys take seconds, so that the second's are
// the first's, the other way round.
var platforms = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ccrun-sample-test-")
	if err != nil {
		return "", err
	}
	one := filepath.Join(dir, "one")
	if err := Create(one, testTime); err != nil {
		return dir, err
	}
	ark, err := readSigner(filepath.Join(one, PrivateDir, "ark-key.pem"))
	if err != nil {
		return dir, err
	}
	ask, err := readSigner(filepath.Join(one, PrivateDir, "ask-key.pem"))
	if err != nil {
		return dir, err
	}
	return dir, CreateWith(filepath.Join(dir, "two"), testTime, ask, ark)
})

func readSigner(path string) (crypto.Signer, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	return k.(crypto.Signer), nil
}

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, _ := platforms(); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

func platformDir(t *testing.T, name string) string {
	t.Helper()
	dir, err := platforms()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func testLaunch(t *testing.T) Launch {
	t.Helper()
	l, err := NewLaunch(kbs.LaunchDigest{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func testEvidence(t *testing.T) kbs.Evidence {
	t.Helper()
	a, err := OpenAttester(platformDir(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	ev, err := a.Sign(kbs.ReportData{4, 5, 6}, testLaunch(t))
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// A report is what go-sev-guest, written by others for real hardware, takes
// for one, and its signature and chain hold.
func TestReportParsesAsSNP(t *testing.T) {
	ev := testEvidence(t)
	if len(ev.Report) != abi.ReportSize || ev.TEE != kbs.Sample {
		t.Fatalf("%d bytes of TEE %q", len(ev.Report), ev.TEE)
	}
	if err := abi.ValidateReportFormat(ev.Report); err != nil {
		t.Fatal(err)
	}
	r, err := abi.ReportToProto(ev.Report)
	if err != nil {
		t.Fatal(err)
	}
	if r.Version != 5 || r.Policy != 0x30000 || r.Vmpl != 0 || r.ReportedTcb != r.CurrentTcb ||
		r.CommittedTcb != r.CurrentTcb || r.LaunchTcb != r.CurrentTcb || !bytes.Equal(r.HostData, make([]byte, 32)) {
		t.Errorf("report %v", r)
	}
	if r.ReportData[0] != 4 || r.Measurement[0] != 1 || r.Cpuid1EaxFms != 0x00a10f11 {
		t.Errorf("report data %x, measurement %x, CPUID %#x", r.ReportData, r.Measurement, r.Cpuid1EaxFms)
	}
	table := new(abi.CertTable)
	if err := table.Unmarshal(ev.Certificates); err != nil {
		t.Fatal(err)
	}
	chain := map[string]*x509.Certificate{}
	for _, guid := range []string{abi.ArkGUID, abi.AskGUID, abi.VcekGUID} {
		der, err := table.GetByGUIDString(guid)
		if err != nil {
			t.Fatal(err)
		}
		if chain[guid], err = x509.ParseCertificate(der); err != nil {
			t.Fatal(err)
		}
	}
	ark, ask, vcek := chain[abi.ArkGUID], chain[abi.AskGUID], chain[abi.VcekGUID]
	if err := errors.Join(ark.CheckSignatureFrom(ark), ask.CheckSignatureFrom(ark), vcek.CheckSignatureFrom(ask)); err != nil {
		t.Error(err)
	}
	if err := verify.SnpReportSignature(ev.Report, vcek); err != nil {
		t.Error(err)
	}
	exts, err := kds.VcekCertificateExtensions(vcek)
	if err != nil {
		t.Fatal(err)
	}
	if uint64(exts.TCBVersion) != r.ReportedTcb || !bytes.Equal(exts.HWID, r.ChipId) || exts.ProductName != "Genoa-B1" {
		t.Errorf("VCEK extensions %+v", exts)
	}
}

// Every certificate says what it is.
func TestCertificatesSayTheyProtectNothing(t *testing.T) {
	a, err := newPlatformCerts(platformDir(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range a {
		if s := c.Subject.String(); !strings.Contains(s, "SIMULATED") || !strings.Contains(s, "protects nothing") {
			t.Errorf("subject %q", s)
		}
		if c.SignatureAlgorithm != x509.SHA384WithRSAPSS {
			t.Errorf("%q signed with %s", c.Subject.CommonName, c.SignatureAlgorithm)
		}
	}
}

func newPlatformCerts(dir string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, name := range []string{arkFile, askFile, vcekFile} {
		c, err := readCertificate(filepath.Join(dir, ChipDir, name))
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	return certs, nil
}

// The layout is right if, given a real chip's variable fields, it reproduces
// the real chip's report to the byte.
func TestLayoutMatchesRealReport(t *testing.T) {
	shared := os.Getenv("CCRUN_SHARED")
	if shared == "" {
		shared = filepath.Join("..", "..", "..", "shared")
	}
	real, err := os.ReadFile(filepath.Join(shared, "vectors", "evidence", "snp-genoa-v5.report.bin"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no shared vector snp-genoa-v5")
	}
	if err != nil {
		t.Fatal(err)
	}
	l := Launch{Digest: kbs.LaunchDigest(real[0x90:0xc0]), Policy: binary.LittleEndian.Uint64(real[8:]),
		HostData: [32]byte(real[0xc0:0xe0]), ReportID: [32]byte(real[0x140:0x160])}
	got := genoa().unsigned(ChipID(real[0x1a0:0x1e0]), kbs.ReportData(real[0x50:0x90]), l)
	for i := range signedSize {
		if got[i] != real[i] {
			t.Errorf("offset %#x: %#02x, a real report has %#02x", i, got[i], real[i])
		}
	}
}

func TestVerifierAcceptsItsOwnPlatformOnly(t *testing.T) {
	ctx := context.Background()
	ev := testEvidence(t)
	one, err := NewVerifier(platformDir(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := one.Verify(ctx, ev, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if c.TEE != kbs.Sample || c.LaunchDigest != (kbs.LaunchDigest{1, 2, 3}) || c.ReportData != (kbs.ReportData{4, 5, 6}) {
		t.Errorf("claims %+v", c)
	}
	two, err := NewVerifier(platformDir(t, "two"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := two.Verify(ctx, ev, testTime); err == nil {
		t.Error("another platform's evidence accepted")
	}
	production, err := snp.New(snp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tee := range []kbs.TEE{kbs.Sample, kbs.SNP} {
		ev.TEE = tee
		if _, err := production.Verify(ctx, ev, testTime); err == nil {
			t.Errorf("the production verifier accepted simulated evidence as TEE %q", tee)
		}
	}
	if _, err := one.Verify(ctx, ev, testTime); err == nil {
		t.Error("the sample verifier accepted evidence of TEE snp")
	}
	if _, err := one.Verify(ctx, testEvidence(t), testTime.Add(lifetime+time.Hour)); err == nil {
		t.Error("expired certificates accepted")
	}
}

func TestSNPVerifierUnderTestRoot(t *testing.T) {
	v, err := NewSNPVerifier(filepath.Join(platformDir(t, "one"), RootsDir), snp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ev := testEvidence(t)
	if _, err := v.Verify(context.Background(), ev, testTime); err == nil {
		t.Error("TEE sample accepted as snp")
	}
	ev.TEE = kbs.SNP
	c, err := v.Verify(context.Background(), ev, testTime)
	if err != nil || c.TEE != kbs.SNP {
		t.Errorf("%+v %v", c, err)
	}
	other, err := NewSNPVerifier(filepath.Join(platformDir(t, "two"), RootsDir), snp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Verify(context.Background(), ev, testTime); err == nil {
		t.Error("evidence under another test root accepted")
	}
	for _, dir := range []string{t.TempDir(), "/nonexistent", filepath.Join(platformDir(t, "one"), PrivateDir)} {
		if _, err := NewSNPVerifier(dir, snp.Options{}); err == nil {
			t.Errorf("test root %s accepted", dir)
		}
	}
}

// Each of these changes one thing of signed evidence. All are refused.
func TestVerifierRefusesMutations(t *testing.T) {
	v, err := NewVerifier(platformDir(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	for name, offset := range map[string]int{
		"version": 0x00, "policy": 0x0a, "VMPL": 0x30, "algorithm": 0x34, "current TCB": 0x38, "platform": 0x40,
		"key": 0x48, "report data": 0x50, "measurement": 0x90, "host data": 0xc0, "report id": 0x140,
		"reported TCB": 0x180, "CPUID": 0x188, "chip id": 0x1a0, "committed TCB": 0x1e0, "launch TCB": 0x1f0,
		"signature r": 0x2a0, "signature s": 0x2e8, "after the signature": 0x49f,
	} {
		ev := testEvidence(t)
		ev.Report[offset] ^= 1
		if _, err := v.Verify(context.Background(), ev, testTime); err == nil {
			t.Errorf("changed %s accepted", name)
		}
	}
	for name, change := range map[string]func(*kbs.Evidence){
		"no certificates": func(ev *kbs.Evidence) { ev.Certificates = nil },
		"short report":    func(ev *kbs.Evidence) { ev.Report = ev.Report[:ReportSize-1] },
		"long report":     func(ev *kbs.Evidence) { ev.Report = append(ev.Report, 0) },
		"no report":       func(ev *kbs.Evidence) { ev.Report = nil },
	} {
		ev := testEvidence(t)
		change(&ev)
		if _, err := v.Verify(context.Background(), ev, testTime); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

func TestSignRefusesZeroValues(t *testing.T) {
	a, err := OpenAttester(platformDir(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Launch){
		"zero":         func(l *Launch) { *l = Launch{} },
		"no digest":    func(l *Launch) { l.Digest = kbs.LaunchDigest{} },
		"no policy":    func(l *Launch) { l.Policy = 0 },
		"no report id": func(l *Launch) { l.ReportID = [32]byte{} },
		"VMPL 4":       func(l *Launch) { l.VMPL = 4 },
	} {
		l := testLaunch(t)
		change(&l)
		if ev, err := a.Sign(kbs.ReportData{}, l); err == nil {
			t.Errorf("%s: signed %d bytes", name, len(ev.Report))
		}
	}
	if _, err := NewLaunch(kbs.LaunchDigest{}); err == nil {
		t.Error("launch without digest")
	}
}

func TestPlatformOnDisk(t *testing.T) {
	dir := platformDir(t, "one")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && strings.Contains(path, "-key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, ChipDir, vcekFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(dir, testTime); !errors.Is(err, fs.ErrExist) {
		t.Errorf("creating again: %v", err)
	}
	if err := Ensure(dir, testTime); err != nil {
		t.Error(err)
	}
	after, err := os.ReadFile(filepath.Join(dir, ChipDir, vcekFile))
	if err != nil || !bytes.Equal(before, after) {
		t.Error("Ensure changed a platform that was there")
	}
	left, err := filepath.Glob(filepath.Join(dir, ".ccrun-sim-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left over: %v %v", left, err)
	}
}

// TestPlatformBesideOthers: a platform is made where firmware lies already, and
// where another init was killed half way.
func TestPlatformBesideOthers(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"firmware", RootsDir, PrivateDir} {
		if err := errors.Join(os.Mkdir(filepath.Join(dir, d), 0o755), os.WriteFile(filepath.Join(dir, d, "old"), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Ensure(dir, testTime); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "firmware", "old")); err != nil {
		t.Errorf("firmware: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, RootsDir, "old")); err == nil {
		t.Error("a root of a killed init is trusted")
	}
	if _, err := NewVerifier(dir); err != nil {
		t.Error(err)
	}
	if _, err := OpenAttester(dir); err != nil {
		t.Error(err)
	}
}

func TestOpenRefusals(t *testing.T) {
	empty := t.TempDir()
	if _, err := OpenAttester(empty); !errors.Is(err, ErrNoRoot) {
		t.Errorf("empty directory: %v", err)
	}
	if _, err := NewVerifier(empty); !errors.Is(err, ErrNoRoot) {
		t.Errorf("empty directory: %v", err)
	}
	mixed := t.TempDir()
	for file, from := range map[string]string{arkFile: "one", askFile: "one", vcekFile: "one", vcekKeyFile: "two"} {
		b, err := os.ReadFile(filepath.Join(platformDir(t, from), ChipDir, file))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(mixed, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenChip(mixed); err == nil {
		t.Error("another chip's key accepted")
	}
	for _, content := range []string{"", "no PEM", strings.Repeat("x", maxPEM+1)} {
		if err := os.WriteFile(filepath.Join(mixed, vcekKeyFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenChip(mixed); err == nil {
			t.Errorf("key file of %d bytes accepted", len(content))
		}
	}
}

// Two guests' reports differ; one guest's do in the signature only.
func TestReportID(t *testing.T) {
	a, err := OpenAttester(platformDir(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	l := testLaunch(t)
	first, err1 := a.Sign(kbs.ReportData{}, l)
	second, err2 := a.Sign(kbs.ReportData{}, l)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Report[:signedSize], second.Report[:signedSize]) {
		t.Error("one guest's reports differ in what is signed")
	}
	if testLaunch(t).ReportID == l.ReportID {
		t.Error("two guests have one report id")
	}
	var key ecdsa.PublicKey = a.vcekKey.PublicKey
	if key.Curve.Params().BitSize != 384 {
		t.Errorf("VCEK on a curve of %d bits", key.Curve.Params().BitSize)
	}
}
