package main

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/workload"
)

// setQEMU reads which VMM an image is for and, for a TD, its first register. The
// firmware is the installed one, if none is named.
func setQEMU(c *cli.Context, m *workload.MachineOptions) error {
	if err := setRTMR0(c, m); err != nil {
		return err
	}
	switch vmm := c.String("vmm"); {
	case vmm == "krun":
		return nil
	case vmm != krun.VMMQEMU:
		return face.Usagef("--vmm %q: expected krun or qemu", vmm)
	}
	m.VMM = krun.VMMQEMU
	if m.Firmware != "" {
		return nil
	}
	tee := workload.ComposedFor(m.TEE)
	path, err := firmware.FindComposed(tee)
	if err != nil {
		return hint.With(face.WithStatus(face.NotCapable, err), "make it with `ccrun firmware compose --tee %s`, or name it with --firmware", tee)
	}
	m.Firmware = path
	return nil
}

// setRTMR0 reads --event-log and --rtmr, of which a TD needs one.
func setRTMR0(c *cli.Context, m *workload.MachineOptions) error {
	for _, name := range []string{"event-log", "rtmr"} {
		if c.IsSet(name) && (m.TEE != kbs.TDX || c.String("vmm") != krun.VMMQEMU) {
			return face.Usagef("--%s: only with --tee tdx --vmm qemu", name)
		}
	}
	if file := c.String("event-log"); file != "" {
		b, err := bounded.File(file, eventlog.MaxLogBytes)
		if err == nil {
			m.RTMR0.Log, err = eventlog.Parse(b)
		}
		if err != nil {
			return fmt.Errorf("reading --event-log %s: %w", file, err)
		}
	}
	given := c.String("rtmr")
	if given == "" {
		return nil
	}
	digits, ok := strings.CutPrefix(given, "0=")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(m.RTMR0.Value) {
		return hint.With(face.Usagef("--rtmr %.120q: expected 0= and 96 hex digits", given), "RTMR 1 and 2 are computed")
	}
	copy(m.RTMR0.Value[:], b)
	if m.RTMR0.Value.IsZero() {
		return face.Usagef("--rtmr 0: it is zero, which no TD has after its firmware ran")
	}
	return nil
}
