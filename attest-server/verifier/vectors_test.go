package verifier_test

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// vector is one entry of INDEX.md.
type vector struct {
	name   string
	fields map[string]string // `measurement` and so on
}

var (
	indexHead  = regexp.MustCompile(`(?m)^### evidence/(\S+)$`)
	indexField = regexp.MustCompile("(?m)^- (\\w+) `([0-9a-f]+)`$")
)

// vectorNamed reads one entry of INDEX.md.
func vectorNamed(t testing.TB, name string) vector {
	index := string(verifiertest.ReadFile(t, verifiertest.Vectors(t), "INDEX.md"))
	heads := indexHead.FindAllStringSubmatchIndex(index, -1)
	for i, h := range heads {
		end := len(index)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		v := vector{name: index[h[2]:h[3]], fields: map[string]string{}}
		for _, f := range indexField.FindAllStringSubmatch(index[h[1]:end], -1) {
			v.fields[f[1]] = f[2]
		}
		if v.name == name {
			return v
		}
	}
	t.Fatalf("no vector %s in INDEX.md", name)
	return vector{}
}

func (v vector) reference(t testing.TB, tee kbs.TEE, digest string) (kbs.ReferenceValues, kbs.ReportData) {
	d := kbs.LaunchDigest(verifiertest.Unhex(t, v.fields[digest]))
	return kbs.ReferenceValues{TEE: tee, Measurements: []kbs.Measurement{{LaunchDigest: d}}},
		kbs.ReportData(verifiertest.Unhex(t, v.fields["report_data"]))
}

// TestSNPVectors: each real report comes out as INDEX.md says.
func TestSNPVectors(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	v, err := snp.New(snp.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		failed  string // rules that fail by default
		open    string // the numbers of AMD-SB advisories that do
		rules   kbs.SNPRules
		product string
	}{
		{"snp-milan-v2-debug", "debug", "3005 3019 3020 3023 3027 3030", kbs.SNPRules{AllowDebug: true}, "Milan"},
		{"snp-milan-v2-provisional", "provisional_firmware", "3005 3019 3020 3023 3027 3030", kbs.SNPRules{AllowProvisional: true}, "Milan"},
		{"snp-milan-v3", "", "3020 3023 3027 3030", kbs.SNPRules{}, "Milan"},
		{"snp-bergamo-v3", "", "3020", kbs.SNPRules{}, "Genoa"},
		{"snp-genoa-v5", "", "", kbs.SNPRules{}, "Genoa"},
		{"snp-turin-v5", "", "3020 3027", kbs.SNPRules{}, "Turin"},
		{"azsnp-milan-v3-a", "", "3020 3023 3027 3030", kbs.SNPRules{}, "Milan"},
		{"azsnp-genoa-v3", "", "3020 3027", kbs.SNPRules{}, "Genoa"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vec := vectorNamed(t, tt.name)
			ref, data := vec.reference(t, kbs.SNP, "measurement")
			der := verifiertest.ReadFile(t, dir, tt.name+".vcek.der")
			vcek, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			at := vcek.NotBefore.Add(24 * time.Hour)
			ev := kbs.Evidence{TEE: kbs.SNP, Report: verifiertest.ReadFile(t, dir, tt.name+".report.bin"), Certificates: verifiertest.CertTable(abi.VcekGUID, der)}
			c, err := v.Verify(context.Background(), ev, at)
			if err != nil {
				t.Fatal(err)
			}
			if c.SNP.Product != tt.product {
				t.Errorf("product %q, expected %q", c.SNP.Product, tt.product)
			}
			for _, n := range strings.Fields(tt.open) {
				tt.failed = strings.TrimSpace(tt.failed + " advisory:AMD-SB-" + n)
				tt.rules.AllowAdvisories = append(tt.rules.AllowAdvisories, "AMD-SB-"+n)
			}
			want := verifier.Expectation{ReportData: data, At: at, Advisories: verifiertest.Advisories(t)}
			if got := verifiertest.Failed(verifier.Appraise(c, ref, want)); got != tt.failed {
				t.Errorf("by default, failed rules %q, expected %q", got, tt.failed)
			}
			ref.SNP = &tt.rules
			if r := verifier.Appraise(c, ref, want); !r.OK() {
				t.Errorf("with %+v, failed rules %q", tt.rules, verifiertest.Failed(r))
			}
		})
	}
}

// TestTDXVectors: each real quote comes out as INDEX.md says, with all
// endorsements of the folder in one bundle.
func TestTDXVectors(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	bundle, err := endorsements.LoadBundle(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	v, err := tdx.New(tdx.Options{Collateral: bundle})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, at, verify, failed, status string }{
		{"tdx-v4-debug", "2023-06-19T08:42:58Z", "", "debug advisory:INTEL-SA-01397", "UpToDate"},
		{"tdx-v4", "2025-06-20T10:16:03Z", "", "advisory:INTEL-SA-01397", "UpToDate"},
		{"tdx-v5-tdx15", "2026-02-02T14:49:26Z", "", "advisory:INTEL-SA-01397", "UpToDate"},
		{"tdx-v4-oldtcb", "2023-06-19T08:42:58Z", "tcb_level", "", ""},
		{"tdx-v4", "2025-08-20T10:16:03Z", "collateral_validity", "", ""},
		{"tdx-v4", "2033-08-20T10:16:03Z", "certificate_validity", "", ""},
	} {
		t.Run(tt.name+" at "+tt.at, func(t *testing.T) {
			vec := vectorNamed(t, tt.name)
			at, err := time.Parse(time.RFC3339, tt.at)
			if err != nil {
				t.Fatal(err)
			}
			ev := kbs.Evidence{TEE: kbs.TDX, Report: verifiertest.ReadFile(t, dir, tt.name+".quote.bin")}
			c, err := v.Verify(context.Background(), ev, at)
			if verifier.RuleOf(err) != tt.verify {
				t.Fatalf("got %v, expected rule %q", err, tt.verify)
			}
			if err != nil {
				return
			}
			if c.TDX.TCBStatus != tt.status {
				t.Errorf("TCB status %q, expected %q", c.TDX.TCBStatus, tt.status)
			}
			ref, data := vec.reference(t, kbs.TDX, "MRTD")
			ref.TDX = &kbs.TDXRules{RTMRs: vec.rtmrs()}
			if got := verifiertest.Failed(verifier.Appraise(c, ref, verifier.Expectation{ReportData: data, At: at, Advisories: verifiertest.Advisories(t)})); got != tt.failed {
				t.Errorf("failed rules %q, expected %q", got, tt.failed)
			}
			ref.TDX.AllowAdvisories, ref.TDX.AllowDebug = []string{"INTEL-SA-01397"}, true
			if r := verifier.Appraise(c, ref, verifier.Expectation{ReportData: data, At: at, Advisories: verifiertest.Advisories(t)}); !r.OK() {
				t.Errorf("allowed: failed rules %q", verifiertest.Failed(r))
			}
		})
	}
}

func (v vector) rtmrs() map[string]string {
	m := map[string]string{}
	for _, i := range []string{"0", "1", "2", "3"} {
		m[i] = v.fields["RTMR"+i]
	}
	return m
}
