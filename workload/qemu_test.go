package workload

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// stubKernel is a bzImage as far as its PE header is read.
func stubKernel() []byte {
	pe := make([]byte, 0x1000)
	le := binary.LittleEndian
	copy(pe, "MZ")
	pe[0x3c] = 0x40
	copy(pe[0x40:], "PE\x00\x00")
	le.PutUint16(pe[0x58:], 0x20b)
	le.PutUint32(pe[0x58+60:], 0x400)
	le.PutUint32(pe[0x58+108:], 6)
	return pe
}

// qemuFirmware is firmware of QEMU's machines with that OVMF.
func qemuFirmware(t *testing.T, ovmf []byte, cpu string) string {
	t.Helper()
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "fw")
	imagetest.WriteFile(t, filepath.Join(in, "kernel"), stubKernel())
	imagetest.WriteFile(t, filepath.Join(in, "OVMF.fd"), ovmf)
	if _, err := firmware.WriteDir(out, firmware.Sample{Kernel: filepath.Join(in, "kernel"), OVMF: filepath.Join(in, "OVMF.fd"), CPU: cpu,
		Cmdline: "quiet " + measure.StopsACPI + " ccrun.net=100.127.255.15/24,100.127.255.2,100.127.255.3"}); err != nil {
		t.Fatal(err)
	}
	return out
}

func qemuOptions(t *testing.T, server *fakeServer, tee kbs.TEE) Options {
	t.Helper()
	o := testOptions(t, server)
	o.TEE, o.VMM, o.MemoryMiB = tee, krun.VMMQEMU, 2048
	if tee == kbs.TDX {
		o.Firmware, o.RTMR0.Value = qemuFirmware(t, ovmftest.TDVF().Build(), ""), kbs.Digest{7}
		return o
	}
	o.Firmware = qemuFirmware(t, ovmftest.AmdSev().Build(), "EPYC-v4")
	return o
}

// TestBuildForQEMU: the registration asks for the identity twice, in what boots
// and in what the machine is launched with; the image says which VMM it is for.
func TestBuildForQEMU(t *testing.T) {
	t.Parallel()
	for tee, profile := range map[kbs.TEE]string{kbs.SNP: krun.HintQEMUSNP, kbs.TDX: krun.HintQEMUTDX, kbs.Sample: krun.HintQEMUSNP} {
		server := &fakeServer{}
		o := qemuOptions(t, server, tee)
		res, err := Build(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v (%s)", tee, err, hint.Of(err))
		}
		r := server.the(t)
		ref := r.Registration.ReferenceValues
		in, err := Inspect(t.Context(), o.System, res.Image, nil)
		if err != nil {
			t.Fatal(err)
		}
		fw, err := firmware.Load(o.Firmware)
		if err != nil {
			t.Fatal(err)
		}
		inputs, err := measure.FromBundle(fw, in.Initrd.Content)
		if err != nil {
			t.Fatal(err)
		}
		want, err := measure.Launch(measure.Profile(profile), inputs, measure.Shape{CPUs: uint(o.CPUs), MemoryMiB: 2048})
		if err != nil || len(ref.Measurements) != 1 || ref.Measurements[0].LaunchDigest != want.Digest || ref.Measurements[0].Profile != profile {
			t.Errorf("%s: registered %+v, expected %v (%v)", tee, ref.Measurements, want, err)
		}
		if id := in.Initrd.Identity; id.VMM != krun.VMMQEMU || id.NetworkMode() != krun.NetworkVirtio {
			t.Errorf("%s: identity of VMM %q, network %q", tee, id.VMM, id.NetworkMode())
		}
		sum := sha256.Sum256(r.Boot.Identity)
		switch {
		case tee != kbs.TDX && (ref.SNP == nil || ref.SNP.HostData != hex.EncodeToString(sum[:]) || ref.Measurements[0].ACPI != kbs.ACPIOff):
			t.Errorf("snp: rules %+v, %+v", ref.SNP, ref.Measurements)
		case tee == kbs.TDX && (ref.TDX == nil || ref.TDX.MRConfigID != kbs.Sum384(r.Boot.Identity).String() || len(ref.TDX.RTMRs) != 3 ||
			ref.TDX.RTMRs["0"] != (kbs.Digest{7}).String() || ref.TDX.RTMRs["1"] != want.RTMRs[1].String() || ref.TDX.RTMRs["2"] != want.RTMRs[2].String() ||
			ref.Measurements[0].Predicted != kbs.PredictedRTMRs):
			t.Errorf("tdx: rules %+v, %+v", ref.TDX, ref.Measurements)
		}
		hints := readOutput(t, o.System, res.Image).files[krun.HintsFile]
		if h, err := krun.DecodeHints(hints); err != nil || h.Profile != profile || h.Version != 4 {
			t.Errorf("%s: hints %s (%v)", tee, hints, err)
		}
	}
}

// TestBuildForQEMURefuses: what would launch and prove nothing, or be denied.
func TestBuildForQEMURefuses(t *testing.T) {
	t.Parallel()
	generic := ovmftest.AmdSev()
	generic.Volume = make([]byte, 8192)
	deaf := ovmftest.TDVF()
	deaf.Volume = ovmftest.Verifier()
	for name, c := range map[string]struct {
		tee   kbs.TEE
		spoil func(t *testing.T, o *Options)
		want  string
	}{
		"OVMF that boots any kernel":    {kbs.SNP, func(t *testing.T, o *Options) { o.Firmware = qemuFirmware(t, generic.Build(), "EPYC-v4") }, "no code that compares"},
		"no CPU model":                  {kbs.SNP, func(t *testing.T, o *Options) { o.Firmware = qemuFirmware(t, ovmftest.AmdSev().Build(), "") }, "CPU"},
		"unknown CPU model":             {kbs.SNP, func(t *testing.T, o *Options) { o.Firmware = qemuFirmware(t, ovmftest.AmdSev().Build(), "Opteron") }, "CPU model"},
		"TD firmware for SNP":           {kbs.SNP, func(t *testing.T, o *Options) { o.Firmware = qemuFirmware(t, ovmftest.TDVF().Build(), "EPYC-v4") }, "no SEV metadata"},
		"the simulator's firmware":      {kbs.SNP, func(t *testing.T, o *Options) { o.Firmware = testFirmware(t) }, "on firmware of kind"},
		"firmware that extends nothing": {kbs.TDX, func(t *testing.T, o *Options) { o.Firmware = qemuFirmware(t, deaf.Build(), "") }, "no driver that extends"},
		"no RTMR 0":                     {kbs.TDX, func(_ *testing.T, o *Options) { o.RTMR0.Value = kbs.Digest{} }, "RTMR 0"},
		"RTMR 0 for SNP":                {kbs.SNP, func(_ *testing.T, o *Options) { o.RTMR0.Value = kbs.Digest{1} }, "RTMR 0 is given"},
		"several for a TD":              {kbs.TDX, func(_ *testing.T, o *Options) { o.MoreFirmware = []string{o.Firmware} }, "several firmwares"},
		"not asked for":                 {kbs.SNP, func(_ *testing.T, o *Options) { o.VMM = "" }, "which libkrun does not boot"},
		"another VMM":                   {kbs.SNP, func(_ *testing.T, o *Options) { o.VMM = "xen" }, "VMM"},
		"the simulator's kernel alone":  {kbs.Sample, func(t *testing.T, o *Options) { o.Firmware = testFirmware(t) }, "of kind qemu-direct"},
		"debug":                         {kbs.SNP, func(_ *testing.T, o *Options) { o.Rules.SNP = &kbs.SNPRules{AllowDebug: true} }, "DEBUG"},
		"debug of a TD":                 {kbs.TDX, func(_ *testing.T, o *Options) { o.Rules.TDX = &kbs.TDXRules{AllowDebug: true} }, "DEBUG"},
		"another's HOST_DATA":           {kbs.SNP, func(_ *testing.T, o *Options) { o.Rules.SNP = &kbs.SNPRules{HostData: strings.Repeat("11", 32)} }, "host_data"},
		"another's MRCONFIGID":          {kbs.TDX, func(_ *testing.T, o *Options) { o.Rules.TDX = &kbs.TDXRules{MRConfigID: strings.Repeat("11", 48)} }, "mr_config_id"},
		"other RTMRs": {kbs.TDX, func(_ *testing.T, o *Options) {
			o.Rules.TDX = &kbs.TDXRules{RTMRs: map[string]string{"1": strings.Repeat("11", 48)}}
		}, "RTMR 1"},
		"TSI": {kbs.SNP, func(_ *testing.T, o *Options) { o.Network = &krun.Network{Mode: krun.NetworkTSI} }, "network"},
	} {
		server := &fakeServer{}
		o := qemuOptions(t, server, c.tee)
		c.spoil(t, &o)
		if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.want) || len(server.reqs) != 0 {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
}
