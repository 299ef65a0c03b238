package main

import (
	"fmt"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// comparison is what --against found.
type comparison struct {
	Evidence kbs.LaunchDigest `json:"evidence"`
	Same     bool             `json:"same"`
	// Match is the machine that has the Evidence's measurement; absent if
	// firmware, kernel or initrd is none of those that were tried.
	Match *measure.Match `json:"match,omitempty"`
	// Unchecked names registers of a TD that nothing was computed for.
	Unchecked []string `json:"unchecked,omitempty"`
}

// shown is what Evidence shows of the machine that made it.
type shown struct {
	tee    kbs.TEE
	digest kbs.LaunchDigest
	rtmrs  func() ([4]kbs.Digest, error)
}

func readShown(file string) (*shown, error) {
	b, err := bounded.File(file, 1<<20)
	if err != nil {
		return nil, err
	}
	s := &shown{rtmrs: func() ([4]kbs.Digest, error) { return measure.ReadRTMRs(b) }}
	if s.tee, s.digest, err = measure.ReadEvidence(b); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return s, nil
}

func (m *measuring) compare(name string) (*comparison, error) {
	tee, want := m.shown.tee, m.shown.digest
	if tee != m.tee && m.tee != kbs.Sample || want.IsZero() {
		return nil, face.WithStatus(face.Denied, fmt.Errorf("%s is Evidence of %s with measurement %v, expected %s", name, tee, want, m.tee))
	}
	variants, err := m.variants()
	if err != nil {
		return nil, err
	}
	asked := m.profiles[0]
	profiles := []measure.Profile{asked}
	for _, p := range measure.Profiles(m.tee, m.about().Kind) {
		if p != asked {
			profiles = append(profiles, p)
		}
	}
	out := &comparison{Evidence: want}
	if tee == kbs.TDX && m.about().Kind == firmware.KindOVMF {
		registers := measure.TDXRegisters{MRTD: want}
		if registers.RTMRs, err = m.shown.rtmrs(); err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		out.Match = measure.FindTDX(registers, profiles, m.shape, variants)
		out.Unchecked = unchecked(variants[0].Inputs)
	} else {
		out.Match = measure.Find(want, profiles, m.shape, variants)
	}
	out.Same = out.Match != nil && len(out.Match.Differs) == 0 && len(out.Match.Unexplained) == 0
	return out, nil
}

// unchecked names the registers of a TD that the inputs say nothing about.
func unchecked(in measure.Inputs) []string {
	var list []string
	if in.EventLog == nil {
		list = append(list, "RTMR0 (it needs --event-log)")
	}
	if len(in.Kernel) == 0 {
		list = append(list, "RTMR1 and RTMR2 (they need --kernel)")
	}
	return append(list, "RTMR3 (for the workload's own use)")
}

func (c *comparison) text() string {
	var s string
	switch {
	case c.Same:
		s = "the Evidence has the expected measurement"
	case c.Match == nil:
		s = "firmware, kernel or initrd differ: no profile, number of vCPUs or common memory size explains " + c.Evidence.String()
	case len(c.Match.Unexplained) != 0:
		s = fmt.Sprintf("nothing explains %s; nearest is profile %s, %d MiB", strings.Join(c.Match.Unexplained, ", "), c.Match.Profile, c.Match.MemoryMiB)
	default:
		s = fmt.Sprintf("differs in %s: the Evidence is of profile %s, %d vCPUs, %d MiB",
			strings.Join(c.Match.Differs, ", "), c.Match.Profile, c.Match.CPUs, c.Match.MemoryMiB)
	}
	if len(c.Unchecked) != 0 {
		s += "; not checked: " + strings.Join(c.Unchecked, ", ")
	}
	return s
}
