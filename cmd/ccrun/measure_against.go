package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
	"github.com/ccrun/ccrun/workload"
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
	s, err := shownIn(b)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	return s, nil
}

// shownIn reads raw Evidence, authentic or not.
func shownIn(b []byte) (s *shown, err error) {
	s = &shown{rtmrs: func() ([4]kbs.Digest, error) { return measure.ReadRTMRs(b) }}
	s.tee, s.digest, err = measure.ReadEvidence(b)
	return s, err
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

// fromSession takes what the guest of --against showed from the server's record,
// and what it should have booted from what the server keeps of its workload;
// nil if --against is a file, or nothing.
func (m *measuring) fromSession(c *cli.Context) ([]byte, error) {
	name := c.String("against")
	if _, err := os.Stat(name); name == "" || err == nil || c.String("server") == "" {
		return nil, nil
	}
	client, err := admin(c)
	if err != nil {
		return nil, err
	}
	rec, err := client.Session(c.Context, name)
	if err != nil {
		return nil, fmt.Errorf("reading session %s: %w", name, err)
	}
	if m.shown, err = shownBy(rec); err != nil {
		// Not authentic: what it shows may say why all the same.
		raw, rawErr := client.SessionEvidence(c.Context, name)
		if rawErr != nil {
			return nil, fmt.Errorf("session %s: %w", name, err)
		}
		program.Log(c).Warn("the Evidence was not authentic: what differs is what it claims", "session", name)
		if m.shown, err = shownIn(raw.Evidence); err != nil {
			return nil, fmt.Errorf("reading the evidence of session %s: %w", name, err)
		}
	}
	if c.IsSet("initrd") || rec.WorkloadID == "" {
		return nil, nil
	}
	workloadName := rec.WorkloadID
	if rec.Version > 0 {
		workloadName = kbs.VersionName(rec.WorkloadID, rec.Version)
	}
	b, err := client.Bootable(c.Context, workloadName)
	if err != nil {
		return nil, fmt.Errorf("reading workload %s: %w", workloadName, err)
	}
	if b.Boot == nil {
		return nil, hint.With(fmt.Errorf("the server does not know what workload %s boots", rec.WorkloadID), "give its initrd with --initrd, or its image with --image")
	}
	agent, err := client.Agent(c.Context, b.Boot.Agent)
	if err != nil {
		return nil, fmt.Errorf("reading the guest agent of workload %s: %w", rec.WorkloadID, err)
	}
	_, initrd, err := workload.Initrd(b, agent)
	if err != nil {
		return nil, fmt.Errorf("workload %s: %w", rec.WorkloadID, err)
	}
	m.takeMachine(c, &b.Registration.ReferenceValues)
	return initrd, nil
}

// takeMachine takes from a registration what the command line does not say.
func (m *measuring) takeMachine(c *cli.Context, ref *kbs.ReferenceValues) {
	if !c.IsSet("tee") {
		m.tee = ref.TEE
	}
	if len(ref.Measurements) == 0 {
		return
	}
	if !c.IsSet("cpus") {
		m.shape.CPUs = ref.Measurements[0].CPUs
	}
	if !c.IsSet("memory") {
		m.shape.MemoryMiB = ref.Measurements[0].MemoryMiB
	}
}

// shownBy reads the claims of a session's record.
func shownBy(rec *kbs.SessionRecord) (*shown, error) {
	var c verifier.Claims
	if len(rec.Result.Claims) == 0 || json.Unmarshal(rec.Result.Claims, &c) != nil || c.LaunchDigest.IsZero() {
		return nil, face.WithStatus(face.Denied, hint.With(errors.New("its Evidence was not authentic: nothing in it can be believed"), "see `ccrun explain %s`", rec.Session))
	}
	return &shown{tee: c.TEE, digest: c.LaunchDigest, rtmrs: func() (r [4]kbs.Digest, err error) {
		if c.TDX == nil {
			return r, errors.New("claims without RTMRs")
		}
		for i, x := range c.TDX.RTMRs {
			if copy(r[i][:], x) != len(r[i]) {
				return r, fmt.Errorf("RTMR %d of %d bytes, expected %d", i, len(x), len(r[i]))
			}
		}
		return r, nil
	}}, nil
}
