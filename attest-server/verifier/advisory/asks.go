package advisory

import (
	"fmt"
	"maps"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Component is one of a TCB's.
type Component struct {
	Name  string
	Value uint8
}

// Components is a TCB's, in the order of Turin's TCB_VERSION.
func Components(t kbs.SNPTCB) [5]Component {
	return [5]Component{{"FMC", t.FMC}, {"bootloader", t.Bootloader}, {"TEE", t.TEE}, {"SNP", t.SNP}, {"microcode", t.Microcode}}
}

// Asks is what f asks for, for people.
func (f Floor) Asks() (all []string) {
	for _, c := range Components(f.TCB) {
		if c.Value > 0 {
			all = append(all, fmt.Sprintf("%s at least %d", c.Name, c.Value))
		}
	}
	for _, b := range f.MitigationBits {
		all = append(all, fmt.Sprintf("mitigation bit %d on", b))
	}
	for _, b := range f.PlatformBits {
		all = append(all, fmt.Sprintf("PLATFORM_INFO bit %d on", b))
	}
	return all
}

// Asks is what f asks for, for people.
func (f TDXFloor) Asks() (all []string) {
	if f.Evaluation > 0 {
		all = append(all, fmt.Sprintf("TCB evaluation at least %d", f.Evaluation))
	}
	for _, v := range slices.Sorted(maps.Keys(f.ModuleSVNs)) {
		all = append(all, fmt.Sprintf("TDX module %s at least SVN %d", v, f.ModuleSVNs[v]))
	}
	return all
}
