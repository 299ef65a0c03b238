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
	var quotes *specs.Mount
	if i.config.TEE == kbs.TDX {
		var told string
		if quotes, monitor.Quotes, told = w.quotes(); told != "" {
			monitor.Warnings = append(monitor.Warnings, told)
		}
	}
	if err := w.rewrite(spec, host, disk, quotes); err != nil {
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

// quotes shows the monitor the quote service's socket, and returns where it is
// there. A service that starts again makes a new one, which a mount of the old one
// does not show: so its directory is mounted, if nothing else is in it.
func (w *QEMU) quotes() (m *specs.Mount, inside, told string) {
	dir, name := filepath.Split(filepath.Clean(w.Quotes))
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) == 1 && entries[0].Name() == name && entries[0].Type() == os.ModeSocket {
		b := machine.ReadOnlyBind(filepath.Clean(dir), qemu.InsideQuotes)
		return &b, path.Join(qemu.InsideQuotes, name), ""
	}
	b := machine.ReadOnlyBind(w.Quotes, qemu.InsideQuotes)
	return &b, qemu.InsideQuotes, fmt.Sprintf("%s is not alone in its directory, so the socket itself is mounted: once the quote service has started again, "+
		"this container gets no quotes; give the service a directory of its own, or start the container again", w.Quotes)
}

// rewrite makes s the container of a monitor.
func (w *QEMU) rewrite(s *crun.Spec, host *qemuHost, disk, quotes *specs.Mount) error {
	root := filepath.Join(s.Bundle, qemuRootDir)
	mounts, err := machine.Root(root, cmp.Or(w.Root, "/"), filepath.Join(s.Bundle, qemuConfigFile), host.firmware, filepath.Join("/", w.Root, host.qemu), host.qemu)
	if err != nil {
		return err
	}
	mounts = append(mounts, machine.ReadOnlyBind(w.Binary, qemu.InsideBinary))
	if quotes != nil {
		mounts = append(mounts, *quotes)
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
func (w *QEMU) host(i *image) (h *qemuHost, err error) {
	tee := i.config.TEE
	h = &qemuHost{}
	if h.devices, err = w.Devices(tee); err != nil {
		return nil, err
	}
	if h.qemu, err = w.Program(context.Background(), tee); err != nil {
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
	fw, err := w.FirmwareFor(tee)
	if err != nil {
		return nil, err
	}
	h.firmware, h.digest = fw.Path, fmt.Sprintf("%x", fw.Digest)
	if i.hints.Firmware != h.digest { // as with libkrun's only worth a warning
		h.warnings = []string{fmt.Sprintf("firmware %s is not the one the image was built for (%s): if the key server denies the guest, "+
			"register what this one measures: `ccrun workload update ID --firmware %s`", h.firmware, i.hints.Firmware, h.firmware)}
	}
	return h, nil
}

// Devices are those of the host that a machine for tee takes; KVM must make such
// machines.
func (w *QEMU) Devices(tee kbs.TEE) (devices []specs.LinuxDevice, err error) {
	nodes := []struct{ path, source string }{{"/dev/kvm", w.KVM}}
	if tee == kbs.SNP {
		nodes = append(nodes, struct{ path, source string }{"/dev/sev", w.SEV})
	}
	for _, n := range nodes {
		d, err := statDevice(n.path, n.source)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	return devices, w.checkMachines(tee)
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

// Program is a QEMU that makes machines for tee, as it is called below Root.
func (w *QEMU) Program(ctx context.Context, tee kbs.TEE) (string, error) {
	path, err := machine.FindQEMUIn(w.Root)
	if err != nil {
		return "", err
	}
	return path, w.Objects(ctx, w.Root, path, tee)
}

// FirmwareFor is what machines for tee boot from.
func (w *QEMU) FirmwareFor(tee kbs.TEE) (*firmware.Bundle, error) {
	dir := w.Firmware
	if dir == "" {
		var err error
		if dir, err = firmware.FindComposed(tee); err != nil {
			return nil, hint.With(err, "make it with `ccrun firmware compose --tee %s`, or name it in %s: {\"qemu_firmware\":\"/path\"}", tee, ConfigPath)
		}
	}
	fw, err := firmware.Load(dir)
	if err != nil {
		return nil, hint.With(err, "make it again with `ccrun firmware compose --tee %s`", tee)
	}
	if fw.Kind != firmware.KindOVMF {
		return nil, hint.With(fmt.Errorf("firmware %s is of kind %q, expected %q", dir, fw.Kind, firmware.KindOVMF), "`ccrun firmware compose` makes it")
	}
	return fw, nil
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
