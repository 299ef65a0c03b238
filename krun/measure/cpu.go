package measure

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// cpuSignature is CPUID leaf 1 EAX (AMD CPUID specification, publication
// 25481): the family above 15 goes into the extended field.
func cpuSignature(family, model, stepping uint32) uint32 {
	low, extended := family, uint32(0)
	if family > 0xf {
		low, extended = 0xf, family-0xf
	}
	return extended<<20 | (model>>4)<<16 | low<<8 | (model&0xf)<<4 | stepping
}

// cpuModels are QEMU's models of CPUs that have SNP or stand in for one
// (target/i386/cpu.c). A version suffix (-v4) changes no signature.
func cpuModels() map[string]uint32 {
	return map[string]uint32{
		"EPYC":       cpuSignature(23, 1, 2),
		"EPYC-IBPB":  cpuSignature(23, 1, 2),
		"EPYC-Rome":  cpuSignature(23, 49, 0),
		"EPYC-Milan": cpuSignature(25, 1, 1),
		"EPYC-Genoa": cpuSignature(25, 17, 0),
		"EPYC-Turin": cpuSignature(26, 0, 0),
	}
}

// CPUModels lists the names that ParseCPU knows.
func CPUModels() []string { return slices.Sorted(maps.Keys(cpuModels())) }

// ParseCPU returns the signature of a QEMU CPU model, or reads one in
// hexadecimal with 0x in front, for `-cpu host` and models not known here.
func ParseCPU(name string) (uint32, error) {
	if hex, ok := strings.CutPrefix(name, "0x"); ok {
		v, err := strconv.ParseUint(hex, 16, 32)
		if err != nil || v == 0 {
			return 0, fmt.Errorf("CPU signature %q, expected 32 bits in hexadecimal, not zero", name)
		}
		return uint32(v), nil
	}
	base := name
	if i := strings.LastIndex(name, "-v"); i > 0 {
		if _, err := strconv.ParseUint(name[i+2:], 10, 8); err == nil {
			base = name[:i]
		}
	}
	if v, ok := cpuModels()[base]; ok {
		return v, nil
	}
	return 0, fmt.Errorf("CPU model %q, expected one of %v or a signature such as 0x%x", name, CPUModels(), cpuSignature(25, 1, 1))
}
