package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload"
)

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
		return nil, fmt.Errorf("session %s: %w", name, err)
	}
	if c.IsSet("initrd") || rec.WorkloadID == "" {
		return nil, nil
	}
	b, err := client.Bootable(c.Context, rec.WorkloadID)
	if err != nil {
		return nil, fmt.Errorf("reading workload %s: %w", rec.WorkloadID, err)
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
