package measure

import (
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TDXRegisters is what a quote says was booted.
type TDXRegisters struct {
	MRTD  kbs.LaunchDigest
	RTMRs [4]kbs.Digest
}

// FindTDX looks for the machine whose MRTD and computable RTMRs are those of a
// quote, as Find does for SNP, and returns the one that leaves the fewest
// registers unexplained, and among these the one that differs least. Nil means
// that no machine has even one of the quote's registers.
func FindTDX(want TDXRegisters, profiles []Profile, asked Shape, variants []Variant) *Match {
	var best *Match
	for _, v := range variants {
		l, err := Prepare(v.Inputs)
		if err != nil {
			continue
		}
		for _, p := range profiles {
			for _, s := range tdxShapes(p, asked, v.Inputs.EventLog != nil) {
				bad, known, err := l.unexplained(want, p, s)
				if err != nil || len(bad) == known {
					continue
				}
				m := &Match{Variant: v.Name, Profile: p, Shape: s, Differs: differs(v, p, profiles[0], s, asked), Unexplained: bad}
				if best == nil || len(bad) < len(best.Unexplained) || len(bad) == len(best.Unexplained) && len(m.Differs) < len(best.Differs) {
					best = m
				}
			}
		}
	}
	return best
}

// tdxShapes lists the shapes that change a register: memory does where there is an
// event log, and with a QEMU that writes the initrd's address into the kernel.
func tdxShapes(p Profile, asked Shape, log bool) []Shape {
	list := []Shape{asked}
	if stack, _ := stackOf(p); !log && !stack.patched {
		return list
	}
	for _, memory := range commonMemoriesMiB() {
		list = append(list, Shape{asked.CPUs, memory})
	}
	return list
}

// unexplained names the registers that differ, of how many known.
func (l *Prepared) unexplained(want TDXRegisters, p Profile, s Shape) (bad []string, known int, err error) {
	if err := s.check(p); err != nil {
		return nil, 0, err
	}
	mrtd, err := l.qemuMRTD(p)
	if err != nil {
		return nil, 0, err
	}
	regs, _, err := l.rtmrs(p, s)
	if err != nil {
		return nil, 0, err
	}
	if mrtd != want.MRTD {
		bad = append(bad, "MRTD (firmware)")
	}
	about := [...]string{"firmware's variables, memory, ACPI tables", "kernel", "command line or initrd", ""}
	for i, got := range want.RTMRs {
		if r, ok := regs[i]; ok && r != got {
			bad = append(bad, fmt.Sprintf("RTMR%d (%s)", i, about[i]))
		}
	}
	return bad, 1 + len(regs), nil
}
