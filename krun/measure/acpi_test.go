package measure

import (
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func TestStopsACPI(t *testing.T) {
	for line, want := range map[string]bool{
		"":                                     false,
		"console=ttyS0 quiet":                  false,
		"initcall_blacklist=acpi_init":         true,
		"quiet\tinitcall_blacklist=acpi_init ": true,
		"initcall_blacklist=foo,acpi_init,bar": true,
		"initcall_blacklist=foo initcall_blacklist=acpi_init": true,
		"acpi=off":            true,
		"acpi=off acpi=force": false,
		"acpi=force initcall_blacklist=acpi_init": false,
		// What looks like it and is not.
		"initcall_blacklist=acpi_initialise":               false,
		"initcall_blacklist=acpi_init2":                    false,
		"initcall_blacklist=acpi":                          false,
		"initcall_blacklist acpi_init":                     false,
		"xinitcall_blacklist=acpi_init":                    false,
		"-- initcall_blacklist=acpi_init":                  false,
		"quiet -- acpi=off":                                false,
		`ccrun.x="a initcall_blacklist=acpi_init b"`:       false,
		`foo="bar initcall_blacklist=acpi_init`:            false,
		"foo=\"a b\" initcall_blacklist=acpi_init":         true,
		`"initcall_blacklist=acpi_init"`:                   false,
		"acpi=ht":                                          false,
		"acpi=strict":                                      false,
		"acpi=noirq":                                       false,
		"acpi_no_static_ssdt":                              false,
		"acpi=off,x":                                       false,
		"ACPI=off":                                         false,
		"quiet acpi=offinitcall_blacklist=acpi_init":       false,
		"quiet\u00a0initcall_blacklist=acpi_init":          false,
		"initcall_blacklist=acpi_init -- acpi=force":       true,
		"initcall_blacklist=acpi_init acpi_rsdp=0x1000000": true,
	} {
		if got := stopsACPI(line); got != want {
			t.Errorf("%q: stopped %v, want %v", line, got, want)
		}
	}
}

// TestACPIIsRefused: a machine that runs the host's code is measured for those
// alone who allow it, and the result says so. Other machines have no say in it.
func TestACPIIsRefused(t *testing.T) {
	direct := Inputs{Kernel: noise(1, 9000), Initrd: noise(2, 5000)}
	for _, c := range []struct {
		profile Profile
		in      Inputs
	}{{QEMUSNP, snpInputs(t)}, {QEMUDirect, direct}} {
		for _, line := range []struct {
			text  string
			allow bool
			want  kbs.ACPI
		}{
			{"console=ttyS0 " + StopsACPI, false, kbs.ACPIOff}, {"console=ttyS0 " + StopsACPI, true, kbs.ACPIOff},
			{"console=ttyS0", true, kbs.ACPIAllowed}, {"", true, kbs.ACPIAllowed},
			{"console=ttyS0", false, ""}, {"", false, ""},
		} {
			in := c.in
			in.Cmdline, in.AllowACPI = line.text, line.allow
			r, err := Launch(c.profile, in, Shape{2, 1024})
			switch {
			case line.want == "" && (!errors.Is(err, ErrACPI) || r != nil):
				t.Errorf("%s %+v: %v, %v", c.profile, line, r, err)
			case line.want != "" && (err != nil || r.ACPI != line.want):
				t.Errorf("%s %+v: %+v, %v", c.profile, line, r, err)
			}
			l, err := Prepare(in)
			if err != nil {
				t.Fatal(err)
			}
			if d, err := l.Digest(c.profile, Shape{2, 1024}); (err == nil) != (line.want != "") || err != nil && !d.IsZero() {
				t.Errorf("%s %+v: digest %v, %v", c.profile, line, d, err)
			}
		}
	}
	in := snpInputs(t)
	in.Kernel, in.Initrd, in.Cmdline = nil, nil, "" // the digest says nothing of a kernel
	if r, err := Launch(QEMUSNP, in, Shape{2, 1024}); err != nil || r.ACPI != "" {
		t.Errorf("without a kernel: %+v, %v", r, err)
	}
}
