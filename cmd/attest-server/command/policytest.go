package command

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

func (p Program) policyCommand() *cli.Command {
	return &cli.Command{
		Name:        "policy",
		Usage:       "check policies, and try them on evidence",
		Description: "Example:\n   " + p.Name + " policy test report.bin --policy acme-policy.json --endorsements certs/",
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "say whether a policy file is right: it can match something, and refuses something", ArgsUsage: "FILE",
				Description: "Example:\n   " + p.Name + " policy check --defaults acme-policy.json",
				Flags:       []cli.Flag{&cli.BoolFlag{Name: "defaults", Usage: "the file is for a server or a tenant, not for one workload"}},
				Action:      checkPolicy,
			},
			{
				Name: "test", Usage: "appraise evidence as the server would, and change nothing", ArgsUsage: "EVIDENCE",
				Description: "EVIDENCE is an SNP report, a TD quote or CoCo evidence JSON; - is standard input. With --policy,\n" +
					"the launch measurement and RTMRs are taken from the evidence; with --workload, everything is as the\n" +
					"store has it: the workload's rules, its tenant's policy and, with --config, the server's. Exit status\n" +
					"0 if it affirms, 3 if not. Fetches nothing.\n\nExamples:\n   " +
					p.Name + " policy test report.bin --policy acme-policy.json --endorsements certs/\n   " +
					p.Name + " policy test report.bin --workload acme.shop --config /etc/attest-server/attest-server.toml",
				Flags: append([]cli.Flag{
					configFlag(), dataFlag(),
					&cli.StringFlag{Name: "policy", Usage: "policy `FILE` alone"},
					&cli.StringFlag{Name: "workload", Usage: "registered workload `ID`"},
					&cli.StringFlag{Name: "endorsements", Usage: "`DIR` of vendor certificates, CRLs and TDX collateral (default: the configuration's)"},
					&cli.StringFlag{Name: "certificates", Usage: "`FILE` with the certificate table of a raw SNP report"},
					&cli.StringFlag{Name: "tee", Usage: "`TEE`: sample, for a simulated report"},
					&cli.StringFlag{Name: "report-data", Usage: "expected REPORT_DATA, `HEX` of up to 64 bytes (default: any but zero)"},
					&cli.StringFlag{Name: "at", Usage: "appraise as of `TIME` (RFC 3339) instead of now"},
					formatFlag(),
				}, p.ServeFlags...),
				Action: p.testPolicy,
			},
		},
	}
}

func (p Program) testPolicy(c *cli.Context) error {
	switch {
	case c.NArg() != 1:
		return usage("policy test: expected one EVIDENCE")
	case c.IsSet("policy") == c.IsSet("workload"):
		return usage("policy test: %w", errOneOf)
	}
	if err := checkFormat(c); err != nil {
		return err
	}
	result, err := p.dryRun(c)
	if err != nil {
		return err
	}
	err = show(c, result, func(w io.Writer) error { return printResult(w, result) })
	if err != nil || result.OK() {
		return err
	}
	var names []string
	for _, r := range result.Failed() {
		names = append(names, r.Rule)
	}
	return &deniedError{strings.Join(names, ", ")}
}

// dryRun turns a refusal by the verifier into a result like any other.
func (p Program) dryRun(c *cli.Context) (verifier.AttestationResult, error) {
	refused := func(tee kbs.TEE, err error) (verifier.AttestationResult, error) {
		var e *verifier.Error
		if errors.As(err, &e) {
			return e.Result(tee), nil
		}
		return verifier.AttestationResult{}, err
	}
	want, err := dryExpectation(c)
	if err != nil {
		return verifier.AttestationResult{}, err
	}
	b, err := readBounded(c.Args().First(), verifier.MaxEvidenceSize)
	if err != nil {
		return verifier.AttestationResult{}, fmt.Errorf("reading evidence: %w", err)
	}
	parsed, err := verifier.ParseEvidence(b)
	if err != nil {
		return refused("", err)
	}
	if name := c.String("certificates"); name != "" {
		if parsed.Evidence.Certificates, err = readBounded(name, maxCertificates); err != nil {
			return verifier.AttestationResult{}, fmt.Errorf("reading certificates: %w", err)
		}
	}
	if c.String("tee") == string(kbs.Sample) && parsed.Evidence.TEE == kbs.SNP {
		parsed.Evidence.TEE = kbs.Sample // whose reports look like SNP's
	}
	v, err := p.dryVerifier(c)
	if err != nil {
		return verifier.AttestationResult{}, err
	}
	claims, err := parsed.Verify(c.Context, v, want.At)
	if err != nil {
		return refused(parsed.Evidence.TEE, err)
	}
	if !c.IsSet("report-data") {
		want.ReportData = claims.ReportData
	}
	e, err := dryRules(c, claims)
	var conflict *policy.LevelError
	if errors.As(err, &conflict) {
		return verifier.AttestationResult{TEE: claims.TEE, Result: verifier.Contraindicated, Claims: claims, Rules: []verifier.Rule{{
			Rule: "policy", Expected: "policies that can be satisfied together", Got: conflict.Error(), Level: conflict.Level, Hint: "change the policy or the workload's rules",
		}}}, nil
	}
	if err != nil {
		return verifier.AttestationResult{}, err
	}
	return e.Appraise(claims, want), nil
}

// maxCertificates is more than a GHCB certificate table ever holds, in bytes.
const maxCertificates = 256 << 10

func dryExpectation(c *cli.Context) (verifier.Expectation, error) {
	want := verifier.Expectation{At: time.Now(), RequirePCRs: c.IsSet("workload")}
	if s := c.String("at"); s != "" {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return want, usage("--at %q: expected a time such as 2026-01-31T12:00:00Z", s)
		}
		want.At = at
	}
	data, err := hex.DecodeString(c.String("report-data"))
	if err != nil || len(data) > len(want.ReportData) {
		return want, usage("--report-data: expected up to %d hex digits", 2*len(want.ReportData))
	}
	copy(want.ReportData[:], data)
	return want, nil
}

func (p Program) dryVerifier(c *cli.Context) (verifier.Verifier, error) {
	cfg, err := storeConfig(c)
	if err != nil {
		return nil, err
	}
	if c.IsSet("endorsements") {
		cfg.Endorsements = c.String("endorsements")
	}
	cfg.EndorsementsOnline = false
	supply, err := openSupply(cfg)
	if err != nil {
		return nil, err
	}
	all, err := p.Verifiers(c, Endorsements{Supply: supply, RequireCRL: cfg.RequireCRL})
	return verifier.ByTEE(all), err
}

// dryRules is what the flags say the claims must satisfy.
func dryRules(c *cli.Context, claims *verifier.Claims) (*policy.Effective, error) {
	compiler, err := policy.NewCompiler()
	if err != nil {
		return nil, err
	}
	if c.IsSet("workload") {
		return workloadRules(c, compiler)
	}
	p, err := readPolicy(c.String("policy"))
	if err != nil {
		return nil, err
	}
	if err := compiler.Check(p, time.Time{}); err != nil { // not_after is a rule here
		return nil, fmt.Errorf("%s: %w", c.String("policy"), err)
	}
	return compiler.Alone(p, claims)
}

// workloadRules is what the store, and the configuration if named, ask of a
// workload.
func workloadRules(c *cli.Context, compiler *policy.Compiler) (e *policy.Effective, err error) {
	parts, err := serverPart(c)
	if err != nil {
		return nil, err
	}
	err = withStore(c, func(ctx context.Context, s *store.DB) error {
		w, err := s.Workload(ctx, c.String("workload"))
		if err != nil {
			return err
		}
		if w.TenantPolicy != nil {
			t, err := policy.Parse(w.TenantPolicy)
			if err != nil {
				return err
			}
			parts = append(parts, policy.Part{Level: kbs.LevelTenant, Policy: t})
		}
		e, err = compiler.Effective(w.Registration.ReferenceValues, parts...)
		return err
	})
	return e, err
}

// printResult is for people.
func printResult(w io.Writer, r verifier.AttestationResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "PASS\tRULE\tEXPECTED\tGOT")
	for _, x := range r.Rules {
		pass := "yes"
		if !x.Pass {
			pass = "NO"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", pass, printable(x.Rule), short(x.Expected), short(x.Got))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range r.Failed() {
		fmt.Fprintf(w, "\n%s failed\n  expected  %s\n  got       %s\n", printable(x.Rule), printable(x.Expected), printable(x.Got))
		if x.Level != "" {
			fmt.Fprintf(w, "  asked by  the policy of the %s\n", printable(x.Level))
		}
		if x.Hint != "" {
			fmt.Fprintf(w, "  hint      %s\n", printable(x.Hint))
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Result)
	return err
}

// printable leaves nothing that could move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c >= 0x80 && c < 0xa0 {
			return '?'
		}
		return c
	}, s)
}

// short cuts what would tear the table; failed rules are repeated in full.
func short(s string) string {
	const most = 40
	r := []rune(printable(s))
	if len(r) <= most {
		return string(r)
	}
	return string(r[:most-1]) + "…"
}
