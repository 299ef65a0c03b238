package measure

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/eventlog"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
)

// Registered is what a registration holds of a machine: the launch digest of
// every VMM that may boot this initrd from this firmware.
func Registered(tee kbs.TEE, fw *firmware.Bundle, initrd []byte, s Shape, allowACPI bool) ([]kbs.Measurement, error) {
	in, err := FromBundle(fw, initrd)
	if err != nil {
		return nil, err
	}
	return registered(tee, fw, in, s, allowACPI, &pageSeries{})
}

func registered(tee kbs.TEE, fw *firmware.Bundle, in Inputs, s Shape, allowACPI bool, before *pageSeries) ([]kbs.Measurement, error) {
	in.AllowACPI = allowACPI
	prepared, err := Prepare(in)
	if err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	prepared.before = before
	var list []kbs.Measurement
	for _, p := range registrable(tee, fw.Kind) {
		d, err := prepared.Digest(p, s)
		if err != nil {
			return nil, fmt.Errorf("measuring for %s: %w", p, err)
		}
		acpi, err := in.ACPI(p)
		if err != nil {
			return nil, err
		}
		m := kbs.Measurement{
			LaunchDigest: d, Profile: string(p), CPUs: s.CPUs, MemoryMiB: s.MemoryMiB,
			Firmware: hex.EncodeToString(fw.Digest[:]), ACPI: acpi,
		}
		if p == QEMUTDX {
			m.Predicted = kbs.PredictedRTMRs
		}
		list = append(list, m)
	}
	return list, nil
}

// registrable leaves out host kernels that no current libkrun runs on and, for a
// TD, all stacks but the current one: a registration has one set of RTMRs.
func registrable(tee kbs.TEE, kind string) []Profile {
	list := Profiles(tee, kind)
	if tee == kbs.TDX && kind == firmware.KindOVMF {
		return list[:1]
	}
	return slices.DeleteFunc(list, func(p Profile) bool { return p == KrunfwTool })
}

// RTMR0 is where a TD's first runtime register comes from, which has QEMU's ACPI
// tables and cannot be computed: one of both.
type RTMR0 struct {
	Log   *eventlog.Log // of such a machine; replayed, and checked where it can be
	Value kbs.Digest    // the owner's word
}

// ErrRTMR0 reports a TD of which the first register is not known.
var ErrRTMR0 = errors.New("RTMR 0 of a TD has QEMU's ACPI tables, and is not computed")

// Registers are the runtime registers that a registration of a TD must have, as
// in kbs.TDXRules.
func Registers(fw *firmware.Bundle, initrd []byte, s Shape, zero RTMR0) (map[string]string, error) {
	if (zero.Log == nil) == zero.Value.IsZero() {
		return nil, hint.With(ErrRTMR0, "give --event-log FILE, /sys/firmware/acpi/tables/data/CCEL of such a machine, or --rtmr 0=HEX, not both")
	}
	in, err := FromBundle(fw, initrd)
	if err != nil {
		return nil, err
	}
	r, err := Launch(QEMUTDX, in, s)
	if err != nil {
		return nil, err
	}
	// Of a log, only RTMR 0: it is of a machine like this one, with another initrd.
	if r.RTMRs[0] = zero.Value; zero.Log != nil {
		if r.RTMRs[0], err = in.replayed(s, zero.Log); err != nil {
			return nil, err
		}
	}
	rtmrs := map[string]string{}
	for i, d := range r.RTMRs {
		rtmrs[strconv.Itoa(i)] = d.String()
	}
	for _, i := range []string{"0", "1", "2"} {
		if rtmrs[i] == "" {
			return nil, fmt.Errorf("RTMR %s was not computed", i)
		}
	}
	return rtmrs, nil
}

// replayed is RTMR 0 after the log's events, of which those that can be computed
// must be there and be right.
func (in *Inputs) replayed(s Shape, log *eventlog.Log) (r kbs.Digest, err error) {
	of := *in
	of.EventLog = log
	events, err := of.rtmr0(s)
	for _, e := range events {
		r = eventlog.Extend(r, *e.SHA384)
	}
	return r, err
}
