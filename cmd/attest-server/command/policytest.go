package command

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/cmd/trial"
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
					face.FormatFlag(),
				}, slices.Concat(trial.Flags("or any but zero"), p.ServeFlags)...),
				Action: p.testPolicy,
			},
		},
	}
}

func (p Program) testPolicy(c *cli.Context) error {
	if err := face.Args(c, 1, 1, "EVIDENCE"); err != nil {
		return err
	}
	if c.IsSet("policy") == c.IsSet("workload") {
		return face.Usagef("policy test: expected --policy FILE or --workload ID, and not both")
	}
	want, err := trial.ExpectationOf(c)
	if err != nil {
		return err
	}
	if want.Advisories, err = namedAdvisories(c); err != nil {
		return err
	}
	want.RequirePCRs = c.IsSet("workload")
	t := trial.Trial{
		At: want.At,
		Prepare: func(parsed *evidence.Parsed) (verifier.Verifier, error) {
			if err := addCertificates(c, parsed); err != nil {
				return nil, err
			}
			return p.dryVerifier(c)
		},
		Appraise: func(claims *verifier.Claims) (verifier.AttestationResult, error) {
			if !c.IsSet("report-data") {
				want.ReportData = claims.ReportData
			}
			return dryAppraise(c, claims, want)
		},
	}
	result, err := t.Judge(c, c.Args().First())
	if err != nil {
		return err
	}
	if err := face.Print(c, result, printResult); err != nil {
		return err
	}
	return trial.Verdict(result)
}

// maxCertificates is more than a GHCB certificate table ever holds, in bytes.
const maxCertificates = 256 << 10

// addCertificates adds what a raw report comes without: the certificates, and
// that it is a simulated one.
func addCertificates(c *cli.Context, p *evidence.Parsed) (err error) {
	if name := c.String("certificates"); name != "" {
		if p.Evidence.Certificates, err = trial.Read(c, "certificates", "certificate_table", name, maxCertificates); err != nil {
			return err
		}
	}
	if c.String("tee") == string(kbs.Sample) && p.Evidence.TEE == kbs.SNP {
		p.Evidence.TEE = kbs.Sample // whose reports look like SNP's
	}
	return nil
}

// dryAppraise turns policies that contradict each other into a result like any
// other.
func dryAppraise(c *cli.Context, claims *verifier.Claims, want verifier.Expectation) (verifier.AttestationResult, error) {
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
	p, err := readPolicy(c, c.String("policy"))
	if err != nil {
		return nil, err
	}
	if err := compiler.Check(p, time.Time{}); err != nil { // not_after is a rule here
		return nil, fmt.Errorf("%s: %w", c.String("policy"), err)
	}
	ref, err := trial.Allow(c, policy.Apply(kbs.ReferenceValues{TEE: claims.TEE}, p))
	if err != nil {
		return nil, err
	}
	p.SNP, p.TDX = ref.SNP, ref.TDX
	return compiler.Alone(p, claims)
}

// workloadRules is what the store, and the configuration if named, ask of a
// workload.
func workloadRules(c *cli.Context, compiler *policy.Compiler) (e *policy.Effective, err error) {
	parts, err := serverPart(c)
	if err != nil {
		return nil, err
	}
	err = withStore(c, func(s *store.DB) error {
		w, err := s.Workload(c.Context, c.String("workload"))
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
		ref, err := trial.Allow(c, w.Registration.ReferenceValues)
		if err == nil {
			e, err = compiler.Effective(ref, parts...)
		}
		return err
	})
	return e, err
}

// printResult is for people.
func printResult(w io.Writer, r verifier.AttestationResult) error {
	if err := face.Rules(w, r.Rules); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Result)
	return err
}
