package measure

import (
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Variant is one set of inputs that a host may have booted.
type Variant struct {
	Name   string // what differs from what was asked for; empty for nothing
	Inputs Inputs
}

// Match is a machine that has the digest looked for.
type Match struct {
	Variant string  `json:"variant,omitempty"` // Name of the inputs
	Profile Profile `json:"profile"`
	Shape
	// Differs names what is not as asked for: "profile", "cpus", "memory" or
	// the variant's name. Empty if all is.
	Differs []string `json:"differs"`
	// Unexplained names registers of the Evidence that are not this machine's
	// (FindTDX only).
	Unexplained []string `json:"unexplained,omitempty"`
}

// commonMemoriesMiB are the sizes people give virtual machines, and the ones
// around libkrun's gap.
func commonMemoriesMiB() []uint {
	return []uint{256, 384, 512, 768, 1024, 1536, 2048, 2560, 3072, 3327, 3328, 3329, 3584, 4096, 5120, 6144, 8192,
		10240, 12288, 16384, 20480, 24576, 32768, 49152, 65536, 98304, 131072, 262144}
}

// maxTriedCPUs bounds the search for a machine with OVMF.
const maxTriedCPUs = 256

// shapes lists what Find tries with a profile. No shape is in an MRTD, and
// computing one is slow.
func shapes(p Profile, asked Shape) []Shape {
	if p == LibkrunTDX {
		return []Shape{{asked.CPUs, max(asked.MemoryMiB, minTDXMiB)}}
	}
	if p == QEMUSNP { // memory is not in the digest
		list := []Shape{asked}
		for cpus := uint(1); cpus <= maxTriedCPUs; cpus++ {
			list = append(list, Shape{cpus, asked.MemoryMiB})
		}
		return list
	}
	list := []Shape{asked}
	for cpus := uint(1); cpus <= MaxCPUs; cpus++ {
		list = append(list, Shape{cpus, asked.MemoryMiB})
		for _, memory := range commonMemoriesMiB() {
			list = append(list, Shape{cpus, memory})
		}
	}
	return list
}

// Find looks for the machine that has digest want, among all profiles of the
// list (the first is the one asked for), 1 to MaxCPUs vCPUs and common memory
// sizes beside asked, and returns the one that differs least. Nil means that
// some input is not among the variants: another kernel, qboot or initrd.
func Find(want kbs.LaunchDigest, profiles []Profile, asked Shape, variants []Variant) *Match {
	var best *Match
	for _, v := range variants {
		l, err := Prepare(v.Inputs)
		if err != nil {
			continue
		}
		for _, p := range profiles {
			for _, s := range shapes(p, asked) {
				// An error means that these inputs make no such machine.
				if d, err := l.Digest(p, s); err != nil || d != want {
					continue
				}
				m := &Match{Variant: v.Name, Profile: p, Shape: s, Differs: differs(v, p, profiles[0], s, asked)}
				if best == nil || len(m.Differs) < len(best.Differs) {
					best = m
				}
			}
		}
	}
	return best
}

func differs(v Variant, p, wantedProfile Profile, s, asked Shape) []string {
	d := []string{}
	if v.Name != "" {
		d = append(d, v.Name)
	}
	if p != wantedProfile {
		d = append(d, "profile")
	}
	if s.CPUs != asked.CPUs {
		d = append(d, "cpus")
	}
	if s.MemoryMiB != asked.MemoryMiB {
		d = append(d, "memory")
	}
	return slices.Clip(d)
}
