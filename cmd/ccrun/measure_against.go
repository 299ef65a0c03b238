package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// comparison is what --against found.
type comparison struct {
	Evidence kbs.LaunchDigest `json:"evidence"`
	Same     bool             `json:"same"`
	// Match is the machine that has the Evidence's measurement; absent if
	// qboot, kernel or initrd are other ones than any known here.
	Match *measure.Match `json:"match,omitempty"`
}

func (m *measuring) compare(file string) (*comparison, error) {
	b, err := readBounded(file, 1<<20)
	if err != nil {
		return nil, err
	}
	tee, want, err := measure.ReadEvidence(b)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if tee != m.tee && m.tee != kbs.Sample || want.IsZero() {
		return nil, fail(exitDenied, fmt.Errorf("%s is Evidence of %s with measurement %v, expected %s", file, tee, want, m.tee), "")
	}
	variants, err := m.variants()
	if err != nil {
		return nil, err
	}
	asked := m.profiles[0]
	profiles := []measure.Profile{asked}
	for _, p := range measure.Profiles(m.tee, m.bundle.Kind) {
		if p != asked {
			profiles = append(profiles, p)
		}
	}
	match := measure.Find(want, profiles, m.shape, variants)
	return &comparison{Evidence: want, Match: match, Same: match != nil && len(match.Differs) == 0}, nil
}

// variants are the inputs as given, and what a host boots by mistake: the
// firmware's own initrd, the initrd without its padding, another installed
// library.
func (m *measuring) variants() ([]measure.Variant, error) {
	in, err := measure.FromBundle(m.bundle, m.initrd)
	if err != nil {
		return nil, err
	}
	list := []measure.Variant{{Inputs: in}}
	if m.bundle.Kind != firmware.KindLibkrun {
		base := in
		base.Initrd = m.bundle.InitrdBase
		return append(list, measure.Variant{Name: "initrd (only the firmware's modules)", Inputs: base}), nil
	}
	if m.initrd != nil {
		own, short := in, in
		own.Initrd, short.Initrd = m.bundle.Initrd, m.initrd
		list = append(list, measure.Variant{Name: "initrd (the firmware's own: it is unpatched)", Inputs: own},
			measure.Variant{Name: "initrd (not padded to 64 KiB)", Inputs: short})
	}
	other, err := loadFirmware("", m.tee)
	switch {
	case err == nil && other.Digest != m.bundle.Digest:
		if in, err := measure.FromBundle(other, m.initrd); err == nil {
			list = append(list, measure.Variant{Name: "firmware (" + other.Path + ")", Inputs: in})
		}
	case err != nil && !errors.As(err, new(hinter)):
		return nil, err
	}
	return list, nil
}

func (c *comparison) text() string {
	switch {
	case c.Same:
		return "the Evidence has the expected measurement"
	case c.Match == nil:
		return "qboot, kernel or initrd differ: no profile, number of vCPUs or common memory size explains " + c.Evidence.String()
	}
	return fmt.Sprintf("differs in %s: the Evidence is of profile %s, %d vCPUs, %d MiB",
		strings.Join(c.Match.Differs, ", "), c.Match.Profile, c.Match.CPUs, c.Match.MemoryMiB)
}
