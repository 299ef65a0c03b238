package workload

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// ErrNotCapable reports a combination of TEE and firmware that proves nothing.
var ErrNotCapable = errors.New("cannot be attested")

// loadFirmware reads what the guest boots from, the initrd apart.
func (o *MachineOptions) loadFirmware() (*firmware.Bundle, error) {
	fw, err := firmware.Load(o.Firmware)
	if err != nil {
		return nil, err
	}
	if err := checkMachine(o.TEE, fw.Kind); err != nil {
		return nil, err
	}
	return fw, o.checkACPI(fw)
}

// checkACPI refuses a machine that runs the host's ACPI code unless that is
// allowed, and an allowance that is not needed.
func (o *MachineOptions) checkACPI(fw *firmware.Bundle) error {
	in := measure.Inputs{Kernel: fw.Kernel, Cmdline: fw.Cmdline, AllowACPI: o.AllowACPI}
	for _, p := range measure.Profiles(o.TEE, fw.Kind) {
		got, err := in.ACPI(p)
		if err != nil {
			return fmt.Errorf("firmware %s: %w", o.Firmware, err)
		}
		if o.AllowACPI && got != kbs.ACPIAllowed {
			return hint.With(hint.Usagef("the host's ACPI code is allowed where there is none, or the measured command line stops it"), "leave --allow-acpi out")
		}
	}
	return nil
}

// checkServerNames refuses a server's name that nothing in the guest will resolve:
// the machine has no name server of its own unless its firmware's command line
// names one (ccrun.net=ADDRESS/PREFIX,GATEWAY,DNS).
func checkServerNames(urls []string, n *krun.Network, cmdline string) error {
	if len(n.Resolvers()) > 0 || resolves.MatchString(cmdline) {
		return nil
	}
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil {
			return err
		}
		if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			return hint.With(hint.Usagef("the guest cannot resolve %q of %s: it has no name server", u.Hostname(), raw),
				"name one that the guest reaches with --dns ADDRESS, or give the server's address in --attest-url")
		}
	}
	return nil
}

// resolves matches a command line with a name server in it.
var resolves = regexp.MustCompile(`(^| )ccrun\.net=[^, ]*,[^, ]*,[^, ]`)

// packAgent compresses the agent, which takes a second, while layers are
// being read.
func (o *MachineOptions) packAgent() func() ([]byte, error) {
	var segment []byte
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		if segment, err = firmware.AgentSegment(o.Agent); err != nil {
			err = fmt.Errorf("making agent segment: %w", err)
		}
	}()
	return func() ([]byte, error) {
		<-done
		return segment, err
	}
}

// checkMachine refuses a TEE that attests to nothing on that firmware.
func checkMachine(tee kbs.TEE, kind string) error {
	switch {
	case tee == kbs.Sample && kind == firmware.KindQEMUDirect, tee == kbs.SNP && kind == firmware.KindLibkrun:
		return nil
	case tee == kbs.TDX:
		return hint.With(fmt.Errorf("TDX under %s %w: its MRTD covers neither kernel nor initrd", kind, ErrNotCapable), "use --tee snp")
	}
	return hint.With(fmt.Errorf("TEE %s on firmware of kind %s %w", tee, kind, ErrNotCapable),
		"--tee snp needs libkrunfw-sev.so.5, --tee sample the directory that `ccrun-sim firmware` makes")
}

// measurements are the launch digests of every VMM that may boot this initrd.
func (o *MachineOptions) measurements(fw *firmware.Bundle, initrd []byte) ([]kbs.Measurement, error) {
	in, err := measure.FromBundle(fw, initrd)
	if err != nil {
		return nil, err
	}
	in.AllowACPI = o.AllowACPI
	prepared, err := measure.Prepare(in)
	if err != nil {
		return nil, fmt.Errorf("measuring: %w", err)
	}
	var list []kbs.Measurement
	for _, p := range measure.Profiles(o.TEE, fw.Kind) {
		if p == measure.KrunfwTool {
			continue // host kernels that no current libkrun runs on
		}
		r, err := prepared.Digest(p, measure.Shape{CPUs: uint(o.CPUs), MemoryMiB: o.MemoryMiB})
		if err != nil {
			return nil, fmt.Errorf("measuring for %s: %w", p, err)
		}
		acpi, err := in.ACPI(p)
		if err != nil {
			return nil, err
		}
		list = append(list, kbs.Measurement{
			LaunchDigest: r, Profile: string(p), CPUs: uint(o.CPUs), MemoryMiB: o.MemoryMiB,
			Firmware: hex.EncodeToString(fw.Digest[:]), ACPI: acpi,
		})
	}
	return list, nil
}
