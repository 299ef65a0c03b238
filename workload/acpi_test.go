package workload

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// firmwareWith is simulated firmware with that command line.
func firmwareWith(t *testing.T, cmdline string) string {
	t.Helper()
	dir := t.TempDir()
	imagetest.WriteFile(t, filepath.Join(dir, "vmlinuz"), []byte("kernel"))
	imagetest.WriteFile(t, filepath.Join(dir, firmware.ConfigFile),
		imagetest.JSON(t, firmware.Config{Version: 1, Kind: firmware.KindQEMUDirect, Kernel: "vmlinuz", Cmdline: cmdline}))
	return dir
}

// TestBuildACPI: firmware that lets the host's ACPI code run builds nothing,
// unless that is allowed; then record, registration and identity say so. An
// allowance for nothing is refused, too.
func TestBuildACPI(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cmdline string
		allow   bool
		want    kbs.ACPI // empty: refused
	}{
		"off":             {"quiet " + measure.StopsACPI, false, kbs.ACPIOff},
		"off, allowed":    {"quiet " + measure.StopsACPI, true, ""},
		"on":              {"quiet", false, ""},
		"on, allowed":     {"quiet", true, kbs.ACPIAllowed},
		"none, no word":   {"", false, ""},
		"misspelt":        {"initcall_blacklist=acpi_start", false, ""},
		"behind two dash": {"quiet -- " + measure.StopsACPI, false, ""},
	} {
		server := &fakeServer{}
		o := testOptions(t, server)
		o.Firmware, o.AllowACPI = firmwareWith(t, c.cmdline), c.allow
		res, err := Build(t.Context(), o)
		if c.want == "" {
			if err == nil || !c.allow && !errors.Is(err, measure.ErrACPI) || c.allow && !errors.Is(err, hint.ErrUsage) || hint.Of(err) == "" || len(server.reqs) != 0 {
				t.Errorf("%s: %v (%s)", name, err, hint.Of(err))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := server.the(t).Registration.ReferenceValues.Measurements[0].ACPI; got != c.want {
			t.Errorf("%s: registered with %q, expected %q", name, got, c.want)
		}
		in, err := Inspect(t.Context(), o.System, res.Image, nil)
		if err != nil || in.Initrd.Identity.Policy.AllowACPI != (c.want == kbs.ACPIAllowed) {
			t.Errorf("%s: identity %+v, %v", name, in, err)
		}
	}
}

// TestRegisterACPI: a record is as good as what it says.
func TestRegisterACPI(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		profile measure.Profile
		acpi    kbs.ACPI
		allow   bool
		want    string // part of the error; empty: none
	}{
		"libkrun":                  {measure.Libkrun116, "", false, ""},
		"libkrun, allowed":         {measure.Libkrun116, "", true, "no measurement of the record lets it run"},
		"QEMU, off":                {measure.QEMUSNP, kbs.ACPIOff, false, ""},
		"QEMU, off, allowed":       {measure.QEMUSNP, kbs.ACPIOff, true, "no measurement of the record lets it run"},
		"QEMU, no word":            {measure.QEMUSNP, "", false, "does not say"},
		"QEMU, no word, allowed":   {measure.QEMUSNP, "", true, "does not say"},
		"QEMU, another word":       {measure.QEMUSNP, "on", true, "does not say"},
		"QEMU, on":                 {measure.QEMUSNP, kbs.ACPIAllowed, false, krun.ACPIWarning},
		"QEMU, on, allowed":        {measure.QEMUSNP, kbs.ACPIAllowed, true, ""},
		"simulator, no word":       {measure.QEMUDirect, "", false, "does not say"},
		"simulator, on":            {measure.QEMUDirect, kbs.ACPIAllowed, false, krun.ACPIWarning},
		"another VMM that says on": {"mine", kbs.ACPIAllowed, false, krun.ACPIWarning},
		"TDX, which measures it":   {measure.QEMUTDX, "", false, ""},
	} {
		good := kbs.Measurement{LaunchDigest: kbs.LaunchDigest{1}, Profile: string(measure.Libkrun112)}
		r := &kbs.Record{Registration: kbs.Registration{ReferenceValues: kbs.ReferenceValues{Measurements: []kbs.Measurement{good,
			{LaunchDigest: kbs.LaunchDigest{2}, Profile: string(c.profile), ACPI: c.acpi}}}}}
		err := CheckACPI(r, c.allow)
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || hint.Of(err) == "") {
			t.Errorf("%s: %v (%s), expected %q", name, err, hint.Of(err), c.want)
		}
	}
}
