package main

import (
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/cmd/trial"
)

// verifyReference gathers the reference values for evidence of tee. Flags come
// on top of the file.
func verifyReference(c *cli.Context, tee kbs.TEE) (ref kbs.ReferenceValues, p kbs.Policy, err error) {
	if err := readStrict(c, c.String("reference"), &ref); err != nil {
		return ref, p, err
	}
	if c.IsSet("tee") {
		ref.TEE = kbs.TEE(c.String("tee"))
	}
	if ref.TEE == "" {
		ref.TEE = tee
	}
	if name := c.String("policy"); name != "" {
		if p, err = readPolicy(c, name); err != nil {
			return ref, p, err
		}
		ref = policy.Apply(ref, p)
	}
	if err := addDigests(c, tee, &ref); err != nil {
		return ref, p, err
	}
	if err := addRules(c, &ref); err != nil {
		return ref, p, err
	}
	ref, err = trial.Allow(c, ref)
	return ref, p, err
}

// addDigests adds the digests given on the command line. An empty one, such as
// the output of a command that failed, leaves nothing that could match.
func addDigests(c *cli.Context, tee kbs.TEE, ref *kbs.ReferenceValues) error {
	name := "measurement"
	if tee == kbs.TDX {
		name = "mrtd"
	}
	for _, flag := range []string{"measurement", "mrtd"} {
		for _, s := range c.StringSlice(flag) {
			b, err := hexFlag(flag, s)
			if err != nil {
				return err
			}
			if len(b) != 0 && len(b) != 48 {
				return face.Usagef("--%s: %d bytes, expected 48", flag, len(b))
			}
			if flag != name {
				continue
			}
			if len(b) == 0 {
				ref.Measurements = nil
				return nil
			}
			ref.Measurements = append(ref.Measurements, kbs.Measurement{LaunchDigest: kbs.LaunchDigest(b)})
		}
	}
	return nil
}

func addRules(c *cli.Context, ref *kbs.ReferenceValues) error {
	if ref.SNP == nil {
		ref.SNP = &kbs.SNPRules{}
	}
	if ref.TDX == nil {
		ref.TDX = &kbs.TDXRules{}
	}
	if c.IsSet("host-data") {
		b, err := hexFlag("host-data", c.String("host-data"))
		if err != nil {
			return err
		}
		if ref.SNP.HostData = hex.EncodeToString(b); len(b) == 0 {
			ref.SNP.HostData = "none given" // not hex: its rule fails
		}
	}
	if c.IsSet("vmpl") {
		if c.Uint("vmpl") > 3 {
			return face.Usagef("--vmpl %d: expected 0 to 3", c.Uint("vmpl"))
		}
		ref.SNP.VMPL = uint32(c.Uint("vmpl"))
	}
	ref.SNP.AllowProvisional = ref.SNP.AllowProvisional || c.Bool("allow-provisional")
	ref.SNP.AllowDebug = ref.SNP.AllowDebug || c.Bool("allow-debug")
	ref.TDX.AllowDebug = ref.TDX.AllowDebug || c.Bool("allow-debug")
	for _, s := range c.StringSlice("rtmr") {
		n, value, ok := strings.Cut(s, "=")
		if !ok || len(n) != 1 || n < "0" || n > "3" {
			return face.Usagef("--rtmr %q: expected N=HEX with N from 0 to 3", s)
		}
		if _, err := hexFlag("rtmr", value); err != nil {
			return err
		}
		if ref.TDX.RTMRs == nil {
			ref.TDX.RTMRs = map[string]string{}
		}
		ref.TDX.RTMRs[n] = strings.ToLower(value)
	}
	return addPCRs(c, ref)
}

func addPCRs(c *cli.Context, ref *kbs.ReferenceValues) error {
	for _, s := range c.StringSlice("pcr") {
		n, value, ok := strings.Cut(s, "=")
		if i, err := strconv.Atoi(n); !ok || err != nil || i < 0 || i > 23 {
			return face.Usagef("--pcr %q: expected N=HEX with N from 0 to 23", s)
		}
		if _, err := hexFlag("pcr", value); err != nil {
			return err
		}
		if ref.VTPM == nil {
			ref.VTPM = &kbs.VTPMRules{}
		}
		if ref.VTPM.PCRs == nil {
			ref.VTPM.PCRs = map[string]string{}
		}
		ref.VTPM.PCRs[n] = strings.ToLower(value)
	}
	return nil
}

func hexFlag(name, s string) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, face.Usagef("--%s: %w, expected hex digits", name, err)
	}
	return b, nil
}
