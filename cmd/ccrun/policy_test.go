package main

import (
	"path/filepath"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/workload"
)

// TestVerifyExpressions: the same policy file as the server's, over real
// evidence; what nothing could match, or everything, is a mistake of usage.
func TestVerifyExpressions(t *testing.T) {
	dir := filepath.Join(verifiertest.Vectors(t), "evidence")
	snp := []string{"--evidence", filepath.Join(dir, "snp-genoa-v5.report.bin"), "--endorsements", dir, "--at", "2025-11-12T12:00:00Z",
		"--measurement", "bece7399a4da054a63a2e3fa1a47ff98c88e391d4379126fc4e75c677f25b6cd6bfd8ef609a8638049633ac7e00e4ac1",
		"--report-data", "bb851e203747c3685d79a29910e76c53957896dbf6e68835b64ea2c2b2be7db6"}
	cel := func(s string) string { return `{"cel":[{"name":"x","expression":"` + s + `"}]}` }
	for _, x := range []struct {
		policy, rules string
		code          int
	}{
		{cel("claims.snp.product == 'Genoa'"), "", 0},
		{cel("claims.snp.product == 'Milan'"), "cel:x", face.Denied},
		{cel("claims.tdx.pce_svn == 13"), "cel:x", face.Denied},
		{`{"not_after":"2025-11-12T12:00:00Z"}`, "policy_not_after", face.Denied},
		{`{"not_after":"2025-11-12T12:00:01Z"}`, "", 0},
		{cel("true"), "", face.Misused}, {cel("claims.snp.vmpl < 0 && 2 < 1"), "", face.Misused}, {cel("claims.nothing"), "", face.Misused}, {`{}`, "", face.Misused},
	} {
		code, r, out := runVerify(t, append(snp[:len(snp):len(snp)], "--policy", write(t, x.policy))...)
		if code != x.code || failedRules(r) != x.rules {
			t.Errorf("%s: exit %d, failed %q, expected %d, %q\n%.300s", x.policy, code, failedRules(r), x.code, x.rules, out)
		}
	}
	reference := write(t, `{"tee":"snp","measurements":[],"cel":[{"name":"mine","expression":"claims.snp.product == 'Turin'"}]}`)
	if code, r, _ := runVerify(t, append(snp[:len(snp):len(snp)], "--reference", reference)...); code != face.Denied || failedRules(r) != "cel:mine" {
		t.Errorf("reference with an expression: exit %d, failed %q", code, failedRules(r))
	}
}

// TestRulesToRegister: --policy of build and register.
func TestRulesToRegister(t *testing.T) {
	with := func(tee kbs.TEE, policy string) (o workload.Options, err error) {
		app := &cli.App{Flags: []cli.Flag{policyFlag()}, Action: func(c *cli.Context) error {
			o.TEE = tee
			return setRules(c, &o)
		}}
		argv := []string{"x"}
		if policy != "" {
			argv = append(argv, "--policy", write(t, policy))
		}
		err = app.Run(argv)
		return o, err
	}
	const both = `{"snp":{"require_ecc":true},"tdx":{"allow_perfmon":true},"cel":[{"name":"x","expression":"claims.tee == 'snp'"}]}`
	if o, err := with(kbs.SNP, both); err != nil || o.Rules.SNP == nil || !o.Rules.SNP.RequireECC || o.Rules.TDX != nil || len(o.Rules.CEL) != 1 || len(o.Rules.Measurements) != 0 {
		t.Errorf("%+v, %v", o.Rules, err)
	}
	if o, err := with(kbs.TDX, both); err != nil || o.Rules.SNP != nil || o.Rules.TDX == nil || !o.Rules.TDX.AllowPerfMon {
		t.Errorf("%+v, %v", o.Rules, err)
	}
	if o, err := with(kbs.SNP, ""); err != nil || o.Rules.SNP != nil || o.Rules.CEL != nil {
		t.Errorf("%+v, %v", o.Rules, err)
	}
	for _, bad := range []string{`{}`, `{"not_after":"2099-01-01T00:00:00Z"}`, `{"snp":{"x":1}}`, `{"cel":[{"name":"x","expression":"true"}]}`} {
		if o, err := with(kbs.SNP, bad); err == nil {
			t.Errorf("%s: %+v", bad, o.Rules)
		}
	}
}
