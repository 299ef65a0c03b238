package workload

import (
	"errors"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
)

// TestCheckMachine: only a TEE that measures what boots there, each refusal
// with its own reason.
func TestCheckMachine(t *testing.T) {
	for _, x := range []struct {
		tee  kbs.TEE
		kind string
		why  string // of the refusal
	}{
		{kbs.SNP, firmware.KindLibkrun, ""},
		{kbs.Sample, firmware.KindQEMUDirect, ""},
		{kbs.TDX, firmware.KindLibkrun, "MRTD covers neither"},
		{kbs.TDX, firmware.KindQEMUDirect, "MRTD covers neither"},
		{kbs.SNP, firmware.KindQEMUDirect, "on firmware of kind"},
		{kbs.Sample, firmware.KindLibkrun, "on firmware of kind"},
		{"", "", "on firmware of kind"},
	} {
		err := checkMachine(x.tee, x.kind)
		if x.why == "" && err != nil || x.why != "" && (!errors.Is(err, ErrNotCapable) || !strings.Contains(err.Error(), x.why)) {
			t.Errorf("%q on %q: %v, expected %q", x.tee, x.kind, err, x.why)
		}
	}
}
