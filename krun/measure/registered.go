package measure

import (
	"encoding/hex"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
)

// Registered is what a registration holds of a machine: the launch digest of
// every VMM that may boot this initrd from this firmware.
func Registered(tee kbs.TEE, fw *firmware.Bundle, initrd []byte, s Shape, allowACPI bool) ([]kbs.Measurement, error) {
	in, err := FromBundle(fw, initrd)
	if err != nil {
		return nil, err
	}
	return registered(tee, fw, in, s, allowACPI, &pageSeries{})
}

func registered(tee kbs.TEE, fw *firmware.Bundle, in Inputs, s Shape, allowACPI bool, before *pageSeries) ([]kbs.Measurement, error) {
	in.AllowACPI = allowACPI
	prepared, err := Prepare(in)
	if err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	prepared.before = before
	var list []kbs.Measurement
	for _, p := range Profiles(tee, fw.Kind) {
		if p == KrunfwTool {
			continue // host kernels that no current libkrun runs on
		}
		d, err := prepared.Digest(p, s)
		if err != nil {
			return nil, fmt.Errorf("measuring for %s: %w", p, err)
		}
		acpi, err := in.ACPI(p)
		if err != nil {
			return nil, err
		}
		list = append(list, kbs.Measurement{
			LaunchDigest: d, Profile: string(p), CPUs: s.CPUs, MemoryMiB: s.MemoryMiB,
			Firmware: hex.EncodeToString(fw.Digest[:]), ACPI: acpi,
		})
	}
	return list, nil
}
