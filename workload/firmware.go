package workload

import (
	"encoding/hex"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/firmware"
)

// loadFirmware reads what the guest boots from, the initrd apart.
func (o *Options) loadFirmware() (*firmware.Bundle, error) {
	fw, err := firmware.Load(o.Firmware)
	if err != nil {
		return nil, err
	}
	return fw, checkMachine(o.TEE, fw.Kind)
}

// packAgent compresses the agent, which takes a second, while layers are
// being read.
func (o *Options) packAgent() func() ([]byte, error) {
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

// chooseID derives a workload id from the image's name, unless one was given.
func (o *Options) chooseID(image string) error {
	if o.WorkloadID != "" {
		return nil
	}
	var random [8]byte
	if _, err := io.ReadFull(o.Rand, random[:]); err != nil {
		return fmt.Errorf("drawing workload id: %w", err)
	}
	o.WorkloadID = slug(image) + "-" + hex.EncodeToString(random[:])
	return nil
}

// slug is the last part of an image name, which has a transport, without tag
// or digest: something to recognise a workload by.
func slug(image string) string {
	transport, name, _ := strings.Cut(image, ":")
	if transport == "docker" || transport == "containers-storage" {
		name = name[strings.LastIndexByte(name, '/')+1:]
		name, _, _ = strings.Cut(name, "@")
		name, _, _ = strings.Cut(name, ":")
	} else { // PATH[:NAME]
		name, _, _ = strings.Cut(name, ":")
		name = strings.TrimSuffix(path.Base(name), ".tar")
	}
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, name)
	name = strings.Trim(name, ".-_")
	if name == "" {
		return "workload"
	}
	return name[:min(len(name), 64)]
}
