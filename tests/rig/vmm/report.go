package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// signer measures what was handed over as libkrun hands it to the processor,
// and returns what answers requests on the report port with Evidence of it.
func (p *parts) signer(chipDir string) (func(*os.File), error) {
	b, err := firmware.FromParts(p.qboot, p.kernel, p.load, nil)
	if err != nil {
		return nil, err
	}
	inputs, err := measure.FromBundle(b, p.initrd)
	if err != nil {
		return nil, err
	}
	r, err := measure.Launch(measure.Libkrun116, inputs, measure.Shape{CPUs: uint(p.config.CPUs), MemoryMiB: p.config.MemoryMiB})
	if err != nil {
		return nil, fmt.Errorf("measuring the launch: %w", err)
	}
	chip, err := sample.OpenChip(chipDir)
	if err != nil {
		return nil, err
	}
	launch, err := sample.NewLaunch(r.Digest)
	if err != nil {
		return nil, err
	}
	return func(port *os.File) { serve(port, chip, launch) }, nil
}

// serve answers 64 bytes of report data with report and certificates, each
// behind its length, until the port ends.
func serve(port io.ReadWriter, chip *sample.Attester, launch sample.Launch) {
	for {
		var data kbs.ReportData
		if _, err := io.ReadFull(port, data[:]); err != nil {
			return
		}
		e, err := chip.Sign(data, launch)
		if err != nil {
			fmt.Fprintln(os.Stderr, "vmm: signing:", err)
			return
		}
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(e.Report)))
		b = binary.LittleEndian.AppendUint32(append(b, e.Report...), uint32(len(e.Certificates)))
		if _, err := port.Write(append(b, e.Certificates...)); err != nil {
			return
		}
	}
}
