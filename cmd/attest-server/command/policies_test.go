package command

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
	"github.com/ccrun/ccrun/cmd/face"
)

func written(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestConfiguredPolicy: --check-config says whether [policy] makes sense, and
// which workloads it leaves out.
func TestConfiguredPolicy(t *testing.T) {
	dir, token := initDir(t)
	for text, want := range map[string]string{
		"[policy]\n":               "empty",
		"[policy]\nnone = true\n":  "",
		"[policy]\nnone = false\n": "none",
		"[policy]\nnone = true\nnot_after = 2099-01-01T00:00:00Z\n":                       "none",
		"[policy.snp]\nrequire_ecc = true\n":                                              "",
		"[policy.snp]\nrequire_eccc = true\n":                                             "require_eccc",
		"[policy.snp]\nrequire_ecc = \"yes\"\n":                                           "require_ecc",
		"[policy.sev]\n":                                                                  "sev",
		"[policy.snp]\nhost_data = \"00\"\n":                                              "host_data",
		"[policy]\nnot_after = 2020-01-01T00:00:00Z\n":                                    "is past",
		"[policy]\nnot_after = 2099-01-01T00:00:00Z\n":                                    "",
		"[[policy.cel]]\nname = \"x\"\nexpression = \"claims.tee == 'snp'\"\n":            "",
		"[[policy.cel]]\nname = \"x\"\nexpression = \"true || claims.tee == 'snp'\"\n":    "true whatever",
		"[[policy.cel]]\nname = \"x\"\nexpression = \"claims.te == 'snp'\"\n":             "undefined field",
		"[[policy.cel]]\nname = \"x\"\nexpression = \"claims.tee == 'snp'\"\nextra = 1\n": "extra",
		"[polic.snp]\n": "polic",
	} {
		_, _, err := run(t.Context(), "serve", "--data", dir, "--config", written(t, text), "--check-config")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, expected %q", text, err, want)
		}
	}
	srv, stop := serve(t, "--data", dir)
	req := registration("w", 1)
	req.Registration.ReferenceValues.SNP = &kbs.SNPRules{Signers: []string{"VLEK"}}
	if _, err := admin(t, dir, srv, token).Register(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if _, err := stop(); err != nil {
		t.Fatal(err)
	}
	_, log, err := run(t.Context(), "serve", "--data", dir, "--config", written(t, "[policy.snp]\nsigners = [\"VCEK\"]\n"), "--check-config")
	if err != nil || !strings.Contains(log, "can never attest") || !strings.Contains(log, "workload=w") {
		t.Errorf("%v\n%s", err, log)
	}
}

// TestPolicyReload: SIGHUP takes a new [policy], and keeps the old one if the
// new one is refused.
func TestPolicyReload(t *testing.T) {
	dir, token := initDir(t)
	config := written(t, "[policy.snp]\nsigners = [\"VCEK\"]\n")
	var log buffer
	cmd, url := processTo(t, &log, nil, "--data", dir, "--config", config)
	c := admin(t, dir, url, token)
	n := 0
	registers := func(signer string) bool {
		n++
		req := registration("w"+signer+string(rune('a'+n)), n)
		req.Registration.ReferenceValues.SNP = &kbs.SNPRules{Signers: []string{signer}}
		_, err := c.Register(t.Context(), req)
		return err == nil
	}
	if registers("VLEK") || !registers("VCEK") {
		t.Fatal("the configured policy is not in force")
	}
	reload := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	reload("[policy.snp]\nsigners = [\"VLEK\"]\n")
	log.await(t, "read again: ")
	if !registers("VLEK") {
		t.Error("SIGHUP did not take the new policy")
	}
	reload("[policy]\n")
	log.await(t, "keeping all that is in use")
	if registers("VCEK") {
		t.Error("an empty policy took the place of the one in use")
	}
}

func TestTenantPolicyCommand(t *testing.T) {
	dir, _ := initDir(t)
	mustRun(t, "tenant", "set", "acme", "--data", dir)
	good := written(t, `{"snp":{"signers":["VCEK"]}}`)
	for _, bad := range [][]string{
		{"acme"}, {"acme", written(t, `{}`)}, {"acme", written(t, `{"vtpm":{"pcrs":{"4":"`+strings.Repeat("01", 32)+`"}}}`)}, {"acme", written(t, "")},
		{"nobody", good}, {"acme", good, "--remove"}, {}, {"acme", filepath.Join(t.TempDir(), "none")},
		{"acme", good, "--config", written(t, "[policy.snp]\nsigners = [\"VLEK\"]\n")}, {"nobody", "--remove"},
	} {
		if out, _, err := run(t.Context(), append([]string{"tenant", "policy", "--data", dir}, bad...)...); err == nil {
			t.Errorf("%v: %s", bad, out)
		}
	}
	mustRun(t, "tenant", "policy", "--data", dir, "acme", good)
	var p kbs.Policy
	if err := json.Unmarshal([]byte(mustRun(t, "tenant", "policy", "--data", dir, "acme")), &p); err != nil || p.SNP == nil || p.SNP.Signers[0] != "VCEK" {
		t.Errorf("%v %+v", err, p)
	}
	mustRun(t, "tenant", "policy", "--data", dir, "acme", "--remove")
	if _, _, err := run(t.Context(), "tenant", "policy", "--data", dir, "acme"); err == nil {
		t.Error("the policy is still there")
	}
	mustRun(t, "policy", "check", good, "--defaults")
	if _, _, err := run(t.Context(), "policy", "check", written(t, `{}`)); err == nil {
		t.Error("an empty policy is right")
	}
}

// TestPolicyTest: dry runs over real evidence, with a policy alone and with
// what a store holds.
func TestPolicyTest(t *testing.T) {
	evidence := filepath.Join(verifiertest.Vectors(t), "evidence")
	snp := []string{"policy", "test", filepath.Join(evidence, "snp-genoa-v5.report.bin"), "--endorsements", evidence, "--at", "2025-11-12T12:00:00Z"}
	tdx := []string{"policy", "test", "--allow-advisory", "INTEL-SA-01397", filepath.Join(evidence, "tdx-v4.quote.bin"), "--endorsements", evidence, "--at", "2025-06-20T10:16:03Z"}
	cel := func(s string) string {
		b, _ := json.Marshal(s)
		return `{"cel":[{"name":"mine","expression":` + string(b) + `,"hint":"so there"}]}`
	}
	for _, x := range []struct {
		args   []string
		policy string
		failed string // "" affirms, "!" is an error of another kind
	}{
		{snp, `{"snp":{}}`, ""},
		{snp, `{"snp":{"forbid_products":["Genoa"]}}`, "product"},
		{snp, cel(`claims.snp.product == "Genoa" && claims.snp.reported_tcb.snp > 10`), ""},
		{snp, cel(`claims.snp.product == "Milan"`), "cel:mine"},
		{snp, cel(`claims.tdx.tcb_status == "UpToDate"`), "cel:mine"},
		{snp, `{"not_after":"2025-11-12T12:00:00Z"}`, "policy_not_after"},
		{snp, `{}`, "!"},
		{append(snp[:len(snp):len(snp)], "--report-data", "01"), `{"snp":{}}`, "report_data"},
		{tdx, cel(`has(claims.tdx) && claims.tdx.tee_tcb_svn.size() == 32`), ""},
		{tdx, `{"tdx":{"minimum_tee_tcb":"ff000000000000000000000000000000"}}`, "minimum_tee_tcb"},
	} {
		path := written(t, x.policy)
		out, _, err := run(t.Context(), append(x.args[:len(x.args):len(x.args)], "--policy", path, "--format", "json")...)
		if x.failed == "!" {
			if err == nil || face.Status(err) == face.Denied {
				t.Errorf("%s: %v", x.policy, err)
			}
			continue
		}
		var r verifier.AttestationResult
		if jerr := json.Unmarshal([]byte(out), &r); jerr != nil {
			t.Errorf("%s: %v, %v", x.policy, err, jerr)
			continue
		}
		var failed []string
		for _, f := range r.Failed() {
			failed = append(failed, f.Rule)
		}
		if strings.Join(failed, " ") != x.failed || (err == nil) != (x.failed == "") || err != nil && face.Status(err) != face.Denied {
			t.Errorf("%s: %v, failed %v, expected %q", x.policy, err, failed, x.failed)
		}
		text, _, _ := run(t.Context(), append(x.args[:len(x.args):len(x.args)], "--policy", path)...)
		if !strings.HasSuffix(text, "\n"+r.Result+"\n") || x.failed != "" && !strings.Contains(text, x.failed+" failed") {
			t.Errorf("%s: %s", x.policy, text)
		}
	}
	testCertificates(t, evidence)

	dir, token := initDir(t)
	mustRun(t, "tenant", "set", "acme", "--data", dir)
	url, stop := serve(t, "--data", dir)
	req := registration("acme.w", 1)
	if err := req.Registration.ReferenceValues.Measurements[0].LaunchDigest.UnmarshalText([]byte("bece7399a4da054a63a2e3fa1a47ff98c88e391d4379126fc4e75c677f25b6cd6bfd8ef609a8638049633ac7e00e4ac1")); err != nil {
		t.Fatal(err)
	}
	if _, err := admin(t, dir, url, token).Register(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if _, err := stop(); err != nil {
		t.Fatal(err)
	}
	stored := append(snp[:len(snp):len(snp)], "--workload", "acme.w", "--data", dir)
	mustRun(t, stored...)
	mustRun(t, "tenant", "policy", "--data", dir, "acme", written(t, cel(`claims.snp.product != "Genoa"`)))
	out, _, err := run(t.Context(), append(stored, "--config", written(t, "[policy.snp]\nsigners = [\"VLEK\"]\n"))...)
	if err == nil || !strings.Contains(out, "signer failed") || !strings.Contains(out, "asked by  the policy of the server") || !strings.Contains(out, "asked by  the policy of the tenant") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, bad := range [][]string{snp, append(stored, "--policy", "x"), append(snp[:len(snp):len(snp)], "--workload", "none", "--data", dir)} {
		if _, _, err := run(t.Context(), bad...); err == nil || face.Status(err) == face.Denied {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// testCertificates tries reports beside which the certificate lies in a table
// of its own, as configfs and snpguest keep them.
func testCertificates(t *testing.T, evidence string) {
	table := func(chip string) string {
		t.Helper()
		der, err := os.ReadFile(filepath.Join(evidence, chip+".vcek.der"))
		if err != nil {
			t.Fatal(err)
		}
		return written(t, string(abi.CertsFromProto(&spb.CertificateChain{VcekCert: der}).Marshal()))
	}
	right := table("snp-genoa-v5")
	b, err := os.ReadFile(right)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"policy", "test", filepath.Join(evidence, "snp-genoa-v5.report.bin"), "--endorsements", t.TempDir(), "--at", "2025-11-12T12:00:00Z",
		"--policy", written(t, `{"snp":{}}`)}
	for name, x := range map[string]struct {
		args   []string
		failed string // "" affirms, "!" is no denial
	}{
		"none":           {nil, "endorsement"},
		"the chip's":     {[]string{"--certificates", right}, ""},
		"another's":      {[]string{"--certificates", table("snp-milan-v3")}, "certificate_chain"},
		"cut short":      {[]string{"--certificates", written(t, string(b[:len(b)-1]))}, "certificate_table"},
		"no table":       {[]string{"--certificates", filepath.Join(evidence, "snp-genoa-v5.vcek.der")}, "certificate_table"},
		"too much":       {[]string{"--certificates", written(t, string(b)+strings.Repeat("x", maxCertificates))}, "certificate_table"},
		"missing":        {[]string{"--certificates", filepath.Join(t.TempDir(), "none")}, "!"},
		"no file at all": {[]string{"--certificates", t.TempDir()}, "!"},
	} {
		out, _, err := run(t.Context(), append(args[:len(args):len(args)], x.args...)...)
		switch {
		case x.failed == "" && err != nil, x.failed == "!" && (err == nil || face.Status(err) == face.Denied),
			len(x.failed) > 1 && (face.Status(err) != face.Denied || !strings.Contains(out, x.failed+" failed")):
			t.Errorf("%s: %v, expected %q\n%s", name, err, x.failed, out)
		}
	}
}
