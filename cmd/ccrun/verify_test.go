package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog/eventlogtest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
	"github.com/ccrun/ccrun/cmd/face"
)

// runVerify runs `ccrun verify` and returns exit code, result and stdout.
func runVerify(t *testing.T, a ...string) (int, verifier.AttestationResult, string) {
	t.Helper()
	app := newApp()
	var out bytes.Buffer
	app.Writer, app.ErrWriter = &out, t.Output()
	code := program.Run(t.Context(), app, append([]string{"ccrun", "verify"}, a...))
	var r verifier.AttestationResult
	if code == 0 || code == face.Denied {
		if err := json.Unmarshal(out.Bytes(), &r); err != nil {
			t.Fatalf("exit %d with output that is no result: %v\n%s", code, err, out.String())
		}
	}
	return code, r, out.String()
}

func failedRules(r verifier.AttestationResult) string {
	var names []string
	for _, f := range r.Failed() {
		names = append(names, f.Rule)
	}
	return strings.Join(names, " ")
}

// TestVerifyCommand: each needed value left out, empty or wrong is a refusal
// by its rule with exit status 3; the whole set passes.
func TestVerifyCommand(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	const (
		digest = "bece7399a4da054a63a2e3fa1a47ff98c88e391d4379126fc4e75c677f25b6cd6bfd8ef609a8638049633ac7e00e4ac1"
		data   = "bb851e203747c3685d79a29910e76c53957896dbf6e68835b64ea2c2b2be7db6"
	)
	mrtd := "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7"
	snp := []string{"--evidence", filepath.Join(dir, "snp-genoa-v5.report.bin"), "--endorsements", dir, "--at", "2025-11-12T12:00:00Z"}
	tdx := []string{"--evidence", filepath.Join(dir, "tdx-v4.quote.bin"), "--endorsements", dir, "--at", "2025-06-20T10:16:03Z",
		"--report-data", "9a9d48e7f6799642d3d1b34e1e5e1742d4bb02dd6ddd551862c1211d35c304f9eca3efdbb481601c163cf52493d6e44aed55d51ec39b7e518fadb92c2b523f20",
		"--mrtd", mrtd, "--rtmr", "0=44c0197b39157fdd7a4dcc44767f9d6b0bb3977c7a8e347b8492f827fe9d9e5c48aca29b220b80b6a540cf994b9bc9c0",
		"--rtmr", "1=0084452c01668329d4bc06acdf58a7205c26743304509973949e5619bf81a6a7aea8c323c173019b3093d54e579e9378"}
	old := slices.Clone(tdx)
	tdx = slices.Concat(tdx, []string{"--allow-advisory", "INTEL-SA-01397"})
	tdx = tdx[:len(tdx):len(tdx)]
	turin := []string{"--evidence", filepath.Join(dir, "snp-turin-v5.report.bin"), "--endorsements", dir, "--at", "2026-01-01T00:00:00Z",
		"--measurement", "f924dd18f168df60fbea937f0b086284d51b1b376de872bac43694f61134d57967c318018de7335503023dbb50dee624",
		"--report-data", "e0fd0bdb6aa4030a6ddea9073e1fcec5be6c782a2c8075a0825dfb3d9a81b924"}
	rtmr2 := "2=d833feef2cd945148aa38ead2c53e9b7f138190aaaebfc551dccd829fc207aa3ba80b70870d7330733642e01d48c3132"
	policy := write(t, `{"snp":{"require_alias_check":true,"forbid_products":["Genoa"]}}`)
	reference := write(t, `{"tee":"snp","measurements":[{"launch_digest":"`+digest+`","profile":"x","cpus":1,"memory_mib":512,"firmware":""}]}`)
	for _, tt := range []struct {
		name, rules string
		code        int
		args        []string
	}{
		{"whole", "", 0, append(snp, "--measurement", digest, "--report-data", data)},
		{"one of two measurements", "", 0, append(snp, "--measurement", strings.Repeat("1", 96), "--measurement", digest, "--report-data", data)},
		{"reference file", "", 0, append(snp, "--reference", reference, "--report-data", data)},
		{"no measurement", "measurement", 3, append(snp, "--report-data", data)},
		{"empty measurement", "measurement", 3, append(snp, "--measurement", "", "--report-data", data)},
		{"empty measurement over a file", "measurement", 3, append(snp, "--reference", reference, "--measurement", "", "--report-data", data)},
		{"zero measurement", "measurement", 3, append(snp, "--measurement", strings.Repeat("0", 96), "--report-data", data)},
		{"no report data", "report_data", 3, append(snp, "--measurement", digest)},
		{"empty report data", "report_data", 3, append(snp, "--measurement", digest, "--report-data", "")},
		{"zero report data", "report_data", 3, append(snp, "--measurement", digest, "--report-data", strings.Repeat("0", 128))},
		{"other host data", "host_data", 3, append(snp, "--measurement", digest, "--report-data", data, "--host-data", strings.Repeat("1", 64))},
		{"empty host data", "host_data", 3, append(snp, "--measurement", digest, "--report-data", data, "--host-data", "")},
		{"other VMPL", "vmpl", 3, append(snp, "--measurement", digest, "--report-data", data, "--vmpl", "1")},
		{"policy file", "product", 3, append(snp, "--measurement", digest, "--report-data", data, "--policy", policy)},
		{"other TEE", "tee", 3, append(snp, "--measurement", digest, "--report-data", data, "--tee", "tdx")},
		{"no certificate", "endorsement", 3, append(snp[:2:2], "--measurement", digest, "--report-data", data)},
		{"clock before the certificate", "certificate_validity", 3, append(snp, "--at", "2025-11-10T12:00:00Z", "--measurement", digest, "--report-data", data)},
		{"not hex", "", face.Misused, append(snp, "--measurement", "xyz", "--report-data", data)},
		{"half a measurement", "", face.Misused, append(snp, "--measurement", digest[:48], "--report-data", data)},
		{"unknown TEE", "", face.Misused, append(snp, "--tee", "sgx")},
		{"not a time", "", face.Misused, append(snp, "--at", "yesterday")},
		{"unknown member", "", face.Misused, append(snp, "--policy", write(t, `{"snp":{"allow_everything":true}}`))},
		{"no such file", "", face.Failed, []string{"--evidence", filepath.Join(dir, "none")}},
		{"no such directory", "", face.Failed, append(snp, "--endorsements", filepath.Join(dir, "none"))},
		{"garbage", "evidence_format", 3, []string{"--evidence", write(t, "garbage")}},
		{"64 MiB", "evidence_format", 3, []string{"--evidence", write(t, strings.Repeat("x", 64<<20))}},
		{"TDX whole", "", 0, append(tdx, "--rtmr", rtmr2)},
		{"TDX with an advisory", "advisory:INTEL-SA-01397", 3, append(old[:len(old):len(old)], "--rtmr", rtmr2)},
		{"advisories", "advisory:AMD-SB-3020 advisory:AMD-SB-3027", 3, turin},
		{"one advisory allowed", "advisory:AMD-SB-3027", 3, append(turin[:len(turin):len(turin)], "--allow-advisory", "AMD-SB-3020")},
		{"advisories allowed", "", 0, append(turin[:len(turin):len(turin)], "--allow-advisory", "AMD-SB-3020", "--allow-advisory", "AMD-SB-3027=2026-01-01")},
		{"advisories allowed too briefly", "advisory:AMD-SB-3027", 3, append(turin[:len(turin):len(turin)], "--allow-advisory", "AMD-SB-3020", "--allow-advisory", "AMD-SB-3027=2025-12-31")},
		{"all advisories allowed", "", 0, append(turin[:len(turin):len(turin)], "--allow-advisory", "all")},
		{"a floor by product", "", face.Misused, append(turin[:len(turin):len(turin)], "--policy", write(t, `{"snp":{"minimum_tcbs":{"Turin":{"snp":4}}}}`))},
		{"no advisory", "", face.Misused, append(turin[:len(turin):len(turin)], "--allow-advisory", "3020")},
		{"another vendor's advisory", "", face.Misused, append(old[:len(old):len(old)], "--rtmr", rtmr2, "--allow-advisory", "AMD-SB-3020")},
		{"advisories without a key", "", face.Misused, append(turin[:len(turin):len(turin)], "--advisories", reference)},
		{"unsigned advisories", "", face.Failed, append(turin[:len(turin):len(turin)], "--advisories", reference, "--advisory-key", "ops+9aeafb2e+AXtzzVbki6jzP5wvjar6dMz8vNtefI0+Nqf4xXGBTZ8X")},
		{"TDX with another boot's event log", "event_log", 3, append(tdx, "--rtmr", rtmr2, "--event-log", write(t, string(eventlogtest.Build(nil))))},
		{"TDX with an empty event log", "event_log", 3, append(tdx, "--rtmr", rtmr2, "--event-log", write(t, ""))},
		{"TDX with an event log beside JSON", "event_log", 3, append(append([]string{"--evidence", filepath.Join(dir, "tdx-v4.coco-evidence.json")}, tdx[2:]...),
			"--rtmr", rtmr2, "--event-log", write(t, "text"))},
		{"TDX without its event log file", "", face.Failed, append(tdx, "--rtmr", rtmr2, "--event-log", "")},
		{"SNP with an event log", "", face.Misused, append(snp, "--event-log", reference)},
		{"TDX without RTMR 2", "rtmr2", 3, tdx},
		{"TDX with empty RTMR 3", "rtmr3", 3, append(tdx, "--rtmr", rtmr2, "--rtmr", "3=")},
		{"TDX with RTMR 4", "", face.Misused, append(tdx, "--rtmr", "4=00")},
		{"TDX with an SNP measurement", "mrtd", 3, append(append([]string{}, tdx[:8]...), "--measurement", mrtd, "--rtmr", rtmr2)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, r, out := runVerify(t, tt.args...)
			got := failedRules(r)
			if tt.name == "TDX with an SNP measurement" {
				got, _, _ = strings.Cut(got, " ")
			}
			if code != tt.code || got != tt.rules {
				t.Errorf("exit %d, failed rules %q, expected %d and %q\n%.2000s", code, failedRules(r), tt.code, tt.rules, out)
			}
			if ok := r.Result == verifier.Affirming; ok != (code == 0) {
				t.Errorf("result %q with exit %d", r.Result, code)
			}
		})
	}
}

// TestVerifyEAR: the claims of an EAR say what the result says.
func TestVerifyEAR(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	for data, want := range map[string]string{"bb851e203747c3685d79a29910e76c53957896dbf6e68835b64ea2c2b2be7db6": "affirming", "00": "contraindicated"} {
		var out bytes.Buffer
		app := newApp()
		app.Writer, app.ErrWriter = &out, t.Output()
		code := program.Run(t.Context(), app, []string{"ccrun", "verify", "--format", "ear", "--evidence", filepath.Join(dir, "snp-genoa-v5.report.bin"), "--endorsements", dir,
			"--at", "2025-11-12T12:00:00Z", "--report-data", data,
			"--measurement", "bece7399a4da054a63a2e3fa1a47ff98c88e391d4379126fc4e75c677f25b6cd6bfd8ef609a8638049633ac7e00e4ac1"})
		var ear verifier.EAR
		if err := json.Unmarshal(out.Bytes(), &ear); err != nil {
			t.Fatal(err)
		}
		if ear.Profile != verifier.EARProfile || ear.Status != want || (code == 0) != (want == "affirming") || len(ear.Submods["cpu0"].Vector) < 4 {
			t.Errorf("exit %d\n%.1000s", code, out.String())
		}
	}
}

func write(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
