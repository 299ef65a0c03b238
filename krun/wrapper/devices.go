package wrapper

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/volumefile"
)

// Least limits for libkrun beside the guest's own memory: the program, the
// firmware library twice, and pages that guest and host share, which the guest
// has in private memory once more; its threads, of which 8 are processors.
const (
	vmmMemoryBytes = 256 << 20
	vmmThreads     = 64
)

// configure writes the specification of a container with a confidential
// machine: what is left of Podman's options, the machine's devices, and the
// annotation that makes crun start it. disk, if any, is the volume file. Both devices, always: crun adds none if
// it finds /dev/kvm, and makes /dev/sev with a number that is not every host's.
func (w *Wrapper) configure(s *crun.Spec, i *image, disk *specs.Mount) (warnings []string, err error) {
	var devices []specs.LinuxDevice
	for _, n := range []struct{ path, source string }{{"/dev/kvm", w.KVM}, {"/dev/sev", w.SEV}} {
		d, err := statDevice(n.path, n.source)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	if err := checkSNP(w.KVM, w.SNP); err != nil {
		return nil, err
	}
	m := crun.Machine{Spec: s, MemoryBytes: int64(i.config.MemoryMiB)<<20 + vmmMemoryBytes, Threads: vmmThreads, Interactive: crun.HasInput(w.Stdin)}
	if warnings, err = m.Judge(crun.Krun); err != nil {
		return nil, err
	}
	if err := s.AddDevices(devices); err != nil {
		return nil, err
	}
	if disk != nil {
		if err := s.Set(volumefile.WithMount(s.Mounts, disk), "mounts"); err != nil {
			return nil, err
		}
	}
	if err := s.Set("sev", "annotations", crun.VariantAnnotation); err != nil {
		return nil, err
	}
	out, err := s.Encode()
	if err != nil {
		return nil, err
	}
	return warnings, firmware.WriteFile(s.Path, out, s.Mode)
}
