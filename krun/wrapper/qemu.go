package wrapper

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/qemu"
	"github.com/ccrun/ccrun/krun/volumefile"
)

// Which VMM runs an image is decided by the profile whose measurement is
// registered, never by what the host has: another would measure something else, and
// be denied. The VMM of an image for QEMU is an ordinary container's process.

// QEMU is what the runtime does with images for QEMU, and of what.
type QEMU struct {
	Binary   string // this program
	Root     string // root file system with QEMU; empty: the host's own
	Firmware string // directory; empty: searched
	Quotes   string // socket of the quote generation service
	// BootLimit is how long a guest's agent may take to start; 0: the default.
	BootLimit time.Duration
	KVM, SEV  string                                                          // device nodes
	SNP, TDX  func(kvm string) (bool, error)                                  // SNPMachines, TDXMachines
	Objects   func(ctx context.Context, root, qemu string, tee kbs.TEE) error // machine.CheckObject
	Memory    func(mib uint) error                                            // machine.CheckMemory
	Stdin     *os.File
}

// Names of what prepare writes into the bundle.
const (
	qemuSpecFile   = "ccrun-qemu.json"
	qemuConfigFile = "ccrun-vmm.json"
	qemuRootDir    = "ccrun-root"
)

// prepare makes the bundle of an image for QEMU ready, and returns the
// specification for crun.
func (w *QEMU) prepare(c crun.Command, spec *crun.Spec, i *image) (config string, err error) {
	host, err := w.host(i)
	if err != nil {
		return "", err
	}
	warnings, err := machine.Judge(spec, &i.config, crun.HasInput(w.Stdin))
	if err != nil {
		return "", err
	}
	list := machine.SplitPorts(spec.Annotations[krun.LabelPorts])
	if len(list) == 0 {
		list = i.hints.Ports
	}
	ports, unforwarded := machine.Forwards(list)
	if err := spec.AddScratch(i.hints.ScratchBytes()); err != nil {
		return "", err
	}
	own, disk, err := volumefile.Attach(c, spec, i.hints.Volumes)
	if err != nil {
		return "", err
	}
	for _, more := range [][]string{own, unforwarded, host.warnings} {
		warnings = append(warnings, more...)
	}
	monitor := qemu.Config{Version: 1, ImageDir: machine.InsideImage, FirmwareDir: machine.InsideFirmware, FirmwareSHA256: host.digest, QEMU: host.qemu, TempDir: machine.InsideTemp,
		ReadOnly: spec.Root.Readonly && disk == nil, BootSeconds: w.bootSeconds(), Ports: ports, Warnings: warnings}
	if i.config.TEE == kbs.TDX {
		monitor.Quotes = qemu.InsideQuotes
	}
	if err := w.rewrite(spec, host, disk, monitor.Quotes != ""); err != nil {
		return "", err
	}
	if err := writeJSON(filepath.Join(spec.Bundle, qemuConfigFile), monitor); err != nil {
		return "", fmt.Errorf("writing the monitor's configuration: %w", err)
	}
	out, err := spec.Encode()
	if err != nil {
		return "", err
	}
	config = filepath.Join(spec.Bundle, qemuSpecFile)
	return config, firmware.WriteFile(config, out, 0o600)
}

// rewrite makes s the container of a monitor.
func (w *QEMU) rewrite(s *crun.Spec, host *qemuHost, disk *specs.Mount, quotes bool) error {
	root := filepath.Join(s.Bundle, qemuRootDir)
	mounts, err := machine.Root(root, cmp.Or(w.Root, "/"), filepath.Join(s.Bundle, qemuConfigFile), host.firmware, filepath.Join("/", w.Root, host.qemu), host.qemu)
	if err != nil {
		return err
	}
	mounts = append(mounts, machine.ReadOnlyBind(w.Binary, qemu.InsideBinary))
	if quotes {
		mounts = append(mounts, machine.ReadOnlyBind(w.Quotes, qemu.InsideQuotes))
	}
	if err := machine.Rewrite(s, root, mounts, []string{qemu.InsideBinary, "vmm", "--config", machine.InsideConfig}); err != nil {
		return err
	}
	if disk != nil {
		disk.Destination = path.Join(machine.InsideImage, disk.Destination)
		if err := s.Set(volumefile.WithMount(s.Mounts, disk), "mounts"); err != nil {
			return err
		}
	}
	return s.AddDevices(host.devices)
}

// qemuHost is what the host gives to a machine of QEMU's.
type qemuHost struct {
	qemu, firmware string
	digest         string // of firmware
	devices        []specs.LinuxDevice
	warnings       []string
}

// host refuses what would end in a message of QEMU's, or of nobody's.
func (w *QEMU) host(i *image) (*qemuHost, error) {
	tee := i.config.TEE
	h := &qemuHost{}
	nodes := []struct{ path, source string }{{"/dev/kvm", w.KVM}}
	if tee == kbs.SNP {
		nodes = append(nodes, struct{ path, source string }{"/dev/sev", w.SEV})
	}
	for _, n := range nodes {
		d, err := statDevice(n.path, n.source)
		if err != nil {
			return nil, err
		}
		h.devices = append(h.devices, d)
	}
	if err := w.checkMachines(tee); err != nil {
		return nil, err
	}
	var err error
	if h.qemu, err = machine.FindQEMUIn(w.Root); err != nil {
		return nil, err
	}
	if err := w.Objects(context.Background(), w.Root, h.qemu, tee); err != nil {
		return nil, err
	}
	if err := w.Memory(i.config.MemoryMiB); err != nil {
		return nil, err
	}
	if tee == kbs.TDX {
		if err := machine.CheckQuotes(w.Quotes); err != nil {
			return nil, err
		}
	}
	return h, w.findFirmware(h, i)
}

// checkMachines says what QEMU calls "vm-type not supported by KVM". Where nobody
// can tell, QEMU finds out.
func (w *QEMU) checkMachines(tee kbs.TEE) error {
	if tee == kbs.SNP {
		return checkSNP(w.KVM, w.SNP)
	}
	if has, err := w.TDX(w.KVM); has || err != nil {
		return nil
	}
	return hint.With(fmt.Errorf("KVM on this host makes no TDs"), "this image runs only on a host with TDX enabled (kvm_intel.tdx=1); see `ccrun doctor`")
}

// findFirmware finds the firmware. That the image was built for another is only
// worth a warning, as with libkrun's.
func (w *QEMU) findFirmware(h *qemuHost, i *image) (err error) {
	if h.firmware = w.Firmware; h.firmware == "" {
		if h.firmware, err = firmware.FindComposed(i.config.TEE); err != nil {
			return hint.With(err, "make it with `ccrun firmware compose --tee %s`, or name it in %s: {\"qemu_firmware\":\"/path\"}", i.config.TEE, ConfigPath)
		}
	}
	fw, err := firmware.Load(h.firmware)
	if err != nil {
		return err
	}
	if fw.Kind != firmware.KindOVMF {
		return hint.With(fmt.Errorf("firmware %s is of kind %q, expected %q", h.firmware, fw.Kind, firmware.KindOVMF), "`ccrun firmware compose` makes it")
	}
	have := fmt.Sprintf("%x", fw.Digest)
	h.digest = have
	if i.hints.Firmware != have {
		h.warnings = []string{fmt.Sprintf("firmware %s is not the one the image was built for (%s): if the key server denies the guest, "+
			"register what this one measures: `ccrun workload update ID --firmware %s`", h.firmware, i.hints.Firmware, h.firmware)}
	}
	return nil
}

// bootSeconds is the boot limit, in whole seconds.
func (w *QEMU) bootSeconds() uint32 {
	return uint32(cmp.Or(w.BootLimit, qemu.DefaultBootLimit).Seconds())
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
