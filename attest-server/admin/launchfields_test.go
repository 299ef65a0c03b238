package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestLaunchFields: a workload of QEMU's is registered with its identity's digest
// in HOST_DATA or MRCONFIGID, and with no other's.
func TestLaunchFields(t *testing.T) {
	identity := []byte("identity")
	sum := sha256.Sum256(identity)
	mine, other := hex.EncodeToString(sum[:]), strings.Repeat("11", 32)
	config := kbs.Sum384(identity).String()
	snp := func(profile, hostData string) kbs.ReferenceValues {
		return kbs.ReferenceValues{TEE: kbs.SNP, SNP: &kbs.SNPRules{HostData: hostData}, Measurements: []kbs.Measurement{{Profile: "libkrun-1.16"}, {Profile: profile}}}
	}
	tdx := func(profile, configID, predicted string) kbs.ReferenceValues {
		return kbs.ReferenceValues{TEE: kbs.TDX, TDX: &kbs.TDXRules{MRConfigID: configID}, Measurements: []kbs.Measurement{{Profile: profile, Predicted: predicted}}}
	}
	sample := func(hostData string) kbs.ReferenceValues {
		ref := snp("qemu-snp", hostData)
		ref.TEE = kbs.Sample
		return ref
	}
	bare := func(ref kbs.ReferenceValues) kbs.ReferenceValues { ref.SNP, ref.TDX = nil, nil; return ref }
	for name, c := range map[string]struct {
		ref  kbs.ReferenceValues
		boot bool // the server knows what it boots
		good bool
	}{
		"snp":                         {snp("qemu-snp", mine), true, true},
		"snp, boot not known":         {snp("qemu-snp", mine), false, true},
		"snp, another's":              {snp("qemu-snp", other), true, false},
		"snp, none":                   {snp("qemu-snp", ""), true, false},
		"snp, none, boot not known":   {snp("qemu-snp", ""), false, false},
		"snp, no rules":               {bare(snp("qemu-snp", "")), true, false},
		"snp, no rules, no boot":      {bare(snp("qemu-snp", "")), false, false},
		"sample, none":                {sample(""), true, true},
		"sample, mine":                {sample(mine), true, true},
		"sample, another's":           {sample(other), true, false},
		"libkrun, none":               {snp("libkrun-1.12", ""), true, true},
		"libkrun with one of its own": {snp("libkrun-1.12", other), true, true},
		"tdx":                         {tdx("qemu-tdx", config, ""), true, true},
		"tdx, predicted":              {tdx("qemu-tdx", config, "rtmr1,rtmr2"), true, true},
		"tdx, boot not known":         {tdx("qemu-tdx", config, ""), false, true},
		"tdx, another's":              {tdx("qemu-tdx", strings.Repeat("11", 48), ""), true, false},
		"tdx, none":                   {tdx("qemu-tdx", "", ""), false, false},
		"tdx, no rules":               {bare(tdx("qemu-tdx", "", "")), false, false},
		"another TD, none":            {tdx("qemu-tdx-2024", "", ""), true, true},
		"predicted, another word":     {tdx("qemu-tdx", config, "rtmr0"), true, false},
		"predicted of SNP": {func() kbs.ReferenceValues {
			r := snp("libkrun-1.16", "")
			r.Measurements[0].Predicted = "rtmr1,rtmr2"
			return r
		}(), true, false},
	} {
		reg := kbs.Registration{IdentityDigest: kbs.Sum384(identity), ReferenceValues: c.ref}
		err := checkLaunchFields(reg)
		if err == nil && c.boot {
			err = checkBoot(reg, &kbs.Boot{Identity: identity, Agent: kbs.Digest{1}, Initrd: kbs.Digest{1}})
		}
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
		reg.Type = kbs.TypeTrustee
		if err := checkLaunchFields(reg); err != nil {
			t.Errorf("%s, of another kind of guests: %v", name, err)
		}
	}
}
