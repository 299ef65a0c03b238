package main

import (
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/endorsements"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/attest-server/verifier/evidence"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/cmd/trial"
	"github.com/ccrun/ccrun/hint"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "appraise SNP or TDX evidence offline: genuine, current, and what was registered",
		UsageText: "ccrun verify --evidence FILE [--endorsements DIR] [options]",
		Description: "Prints an attestation result in JSON: tee, result (affirming or contraindicated), every\n" +
			"rule with what was expected and got, and the claims. Exit status 0 if affirming, 3 if not.\n" +
			"Nothing is fetched: certificates, CRLs and collateral come from --endorsements or the evidence.\n\n" +
			"Example:\n   ccrun verify --evidence report.bin --endorsements certs/ --measurement $(ccrun measure ...) --report-data $HEX",
		Flags:  verifyFlags(),
		Action: verifyAction,
	}
}

func verifyFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "tee", Usage: "refuse evidence of any other `TEE`: snp or tdx"},
		&cli.StringFlag{Name: "evidence", Required: true, Usage: "`FILE`: SNP report, TD quote or CoCo evidence JSON; - for stdin"},
		&cli.StringFlag{Name: "event-log", Usage: "`FILE` with a raw TD quote's event log (the data of ACPI table CCEL), which must replay to its RTMRs"},
		&cli.StringFlag{Name: "endorsements", Usage: "`DIR` of certificates, CRLs (DER or PEM) and *.collateral.json, told apart by content"},
		&cli.StringFlag{Name: "reference", Usage: "`FILE` with reference values in JSON, as in a registration"},
		&cli.StringFlag{Name: "policy", Usage: "`FILE` with rules in JSON: {\"snp\":{...},\"tdx\":{...},\"cel\":[...]} as in reference values"},
		&cli.StringSliceFlag{Name: "measurement", Usage: "expected SNP launch measurement, `HEX`; may be repeated"},
		&cli.StringSliceFlag{Name: "mrtd", Usage: "expected MRTD of a TD, `HEX`; may be repeated"},
		&cli.StringSliceFlag{Name: "rtmr", Usage: "expected RTMR of a TD, `N=HEX`; 0 to 2 are needed"},
		&cli.StringSliceFlag{Name: "pcr", Usage: "expected PCR of an Azure guest's vTPM, `N=HEX`; 4 must be among them"},
		&cli.StringFlag{Name: "host-data", Usage: "expected HOST_DATA, `HEX` (default: zero)"},
		&cli.UintFlag{Name: "vmpl", Usage: "expected VMPL, `N`"},
		&cli.BoolFlag{Name: "allow-provisional", Usage: "accept firmware that the host can still roll back"},
		&cli.BoolFlag{Name: "allow-debug", Usage: "accept guests that the host can read: for tests alone"},
		&cli.StringFlag{Name: "format", Usage: "`FORMAT`: json (the default), or ear for EAR claims, unsigned"},
	}, trial.Flags("zeros follow")...)
}

func verifyAction(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	if f := c.String("format"); f != "" && f != "json" && f != "ear" {
		return face.Usagef("--format %q: expected json or ear", f)
	}
	want, err := trial.ExpectationOf(c)
	if err != nil {
		return err
	}
	switch t := c.String("tee"); t {
	case "", string(kbs.SNP), string(kbs.TDX):
	default:
		return face.Usagef("--tee %q: expected snp or tdx", t)
	}
	result, err := verifyTrial(c, want).Judge(c, c.String("evidence"))
	if err != nil {
		return err
	}
	if err := printResult(c, result, want.At); err != nil {
		return err
	}
	return trial.Verdict(result)
}

// printResult prints the result, or its EAR claims: unsigned, since whoever
// runs this has no reason to be believed by others. The server signs.
func printResult(c *cli.Context, result verifier.AttestationResult, at time.Time) error {
	if c.String("format") != "ear" {
		return face.JSON(c.App.Writer, result)
	}
	wire, err := result.Wire()
	if err != nil {
		return err
	}
	by := verifier.VerifierID{Developer: "https://github.com/ccrun/ccrun", Build: "ccrun " + face.Version()}
	ear, err := verifier.NewEAR(wire, by, "ccrun:verify", at)
	if err != nil {
		return err
	}
	return face.JSON(c.App.Writer, ear)
}

// verifyTrial appraises by what the flags say. They are all read before
// anything is verified, so that a mistake in them is told whatever the
// Evidence is.
func verifyTrial(c *cli.Context, want verifier.Expectation) trial.Trial {
	var ref kbs.ReferenceValues
	var p kbs.Policy
	return trial.Trial{
		TEE: kbs.TEE(c.String("tee")), At: want.At,
		Prepare: func(parsed *evidence.Parsed) (verifier.Verifier, error) {
			err := addEventLog(c, parsed)
			if err == nil {
				ref, p, err = verifyReference(c, parsed.Evidence.TEE)
			}
			if err != nil {
				return nil, err
			}
			return offlineVerifier(c)
		},
		Appraise: func(claims *verifier.Claims) (verifier.AttestationResult, error) {
			return appraiseUnder(ref, p, claims, want)
		},
	}
}

// addEventLog reads the log that a raw quote comes without.
func addEventLog(c *cli.Context, p *evidence.Parsed) error {
	if !c.IsSet("event-log") {
		return nil
	}
	b, err := trial.Read(c, "the event log", "event_log", c.String("event-log"), eventlog.MaxLogBytes)
	if err != nil {
		return err
	}
	if err := p.AddEventLog(b); err != nil {
		return face.Usagef("--event-log: %w", err)
	}
	return nil
}

// offlineVerifier trusts the vendors' built-in roots and looks for everything
// else in --endorsements, if given.
func offlineVerifier(c *cli.Context) (verifier.Verifier, error) {
	dir := c.String("endorsements")
	bundle := &endorsements.Bundle{}
	if dir != "" {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is not a directory", dir)
		}
		if err != nil {
			return nil, hint.With(fmt.Errorf("reading endorsements: %w", err), "--endorsements takes a directory")
		}
		if bundle, err = endorsements.LoadBundle(os.DirFS(dir)); err != nil {
			return nil, err
		}
		program.Log(c).Debug("files without endorsements", "names", bundle.Skipped())
	}
	amd, err := snp.New(snp.Options{Endorsements: bundle, CRLs: bundle.CRLs()})
	if err != nil {
		return nil, err
	}
	intel, err := tdx.New(tdx.Options{Collateral: bundle})
	if err != nil {
		return nil, err
	}
	return verifier.ByTEE{kbs.SNP: amd, kbs.TDX: intel}, nil
}
