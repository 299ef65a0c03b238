package workload

import (
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

// loadFirmware reads what the guest boots from, the initrd apart: Firmware,
// then what may be in its place.
func (o *MachineOptions) loadFirmware() ([]*firmware.Bundle, error) {
	var all []*firmware.Bundle
	for _, path := range append([]string{o.Firmware}, o.MoreFirmware...) {
		fw, err := firmware.Load(path)
		if err != nil {
			return nil, err
		}
		if err := checkMachine(o.TEE, fw.Kind); err != nil {
			return nil, err
		}
		if err := o.checkVMM(path, fw.Kind); err != nil {
			return nil, err
		}
		if err := o.checkACPI(path, fw); err != nil {
			return nil, err
		}
		for _, other := range all {
			if other.Digest == fw.Digest {
				return nil, hint.With(hint.Usagef("firmware %s is the same as %s", path, other.Path), "name each once with --firmware")
			}
		}
		all = append(all, fw)
	}
	return all, nil
}

// checkACPI refuses a machine that runs the host's ACPI code unless that is
// allowed, and an allowance that is not needed.
func (o *MachineOptions) checkACPI(path string, fw *firmware.Bundle) error {
	in := measure.Inputs{Kernel: fw.Kernel, Cmdline: fw.Cmdline, AllowACPI: o.AllowACPI}
	for _, p := range measure.Profiles(o.TEE, fw.Kind) {
		got, err := in.ACPI(p)
		if err != nil {
			return fmt.Errorf("firmware %s: %w", path, err)
		}
		if o.AllowACPI && got != kbs.ACPIAllowed {
			return hint.With(hint.Usagef("the host's ACPI code is allowed where there is none, or the measured command line of %s stops it", path), "leave --allow-acpi out")
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
	case tee == kbs.Sample && kind == firmware.KindQEMUDirect, tee == kbs.SNP && kind == firmware.KindLibkrun,
		tee.Valid() && kind == firmware.KindOVMF:
		return nil
	case tee == kbs.TDX:
		return hint.With(fmt.Errorf("TDX under %s %w: its MRTD covers neither kernel nor initrd", kind, ErrNotCapable), "use --tee snp, or --vmm qemu with firmware that `ccrun firmware compose --tee tdx` makes")
	}
	return hint.With(fmt.Errorf("TEE %s on firmware of kind %s %w", tee, kind, ErrNotCapable),
		"--tee snp needs libkrunfw-sev.so.5, --tee sample the directory that `ccrun-sim firmware` makes")
}

// measurements are the launch digests of every VMM that may boot this initrd
// from one of the firmwares.
func (o *MachineOptions) measurements(firmwares []*firmware.Bundle, initrd []byte) ([]kbs.Measurement, error) {
	var all []kbs.Measurement
	for _, fw := range firmwares {
		list, err := measure.Registered(o.TEE, fw, initrd, measure.Shape{CPUs: uint(o.CPUs), MemoryMiB: o.MemoryMiB}, o.AllowACPI)
		if err != nil {
			return nil, fmt.Errorf("firmware %s: %w", fw.Path, err)
		}
		all = append(all, list...)
	}
	return all, nil
}
