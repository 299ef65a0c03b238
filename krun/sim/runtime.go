package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/machine"
	"github.com/ccrun/ccrun/krun/volumefile"
)

// RuntimeName is the name under which ccrun-sim is an OCI runtime.
const RuntimeName = "krun-sim"

// Runtime is the OCI runtime: crun, except that the containers of workload
// images get a VMM for a process.
type Runtime struct {
	Binary   string // path of ccrun-sim itself, for use inside the container
	Root     string // of the simulated platform; SampleRoot in the command line wins
	Firmware string // directory; empty: Root/firmware
	// QEMUFirmware is the directory for images of profile qemu-snp, whose machine is
	// production's less the TEE; empty: where ccrun looks.
	QEMUFirmware string
	Crun         string // path of the real runtime
	HostRoot     string // "/", but for tests
	QEMURoot     string // root file system with QEMU; empty: the host's own
	Stdin        *os.File
}

// Options of the runtime's own, which come from podman --runtime-flag.
const (
	rootOption     = "sample-root"
	firmwareOption = "firmware"
)

// Parse reads the runtime's command line.
func Parse(argv []string) (crun.Command, error) {
	return crun.Parse(argv, rootOption, firmwareOption)
}

// Command works out what to execute for c. For create and run of a workload
// image it first writes another configuration into the bundle and names that
// one; everything else is crun's business, with unchanged arguments.
func (r *Runtime) Command(c crun.Command) ([]string, error) {
	if dir := c.Own[rootOption]; dir != "" {
		r.Root = dir
	}
	if dir := c.Own[firmwareOption]; dir != "" {
		r.Firmware, r.QEMUFirmware = dir, dir
	}
	argv := append([]string{r.Crun}, c.Args()...)
	if c.Verb == "exec" && ofWorkload(c) {
		return nil, crun.RefuseExec()
	}
	if !c.Creates() {
		return argv, nil
	}
	for _, dir := range []string{r.Root, r.Firmware, r.QEMUFirmware} {
		if dir != "" && !filepath.IsAbs(dir) { // Podman chooses our working directory
			return nil, fmt.Errorf("directory %q: expected an absolute path", dir)
		}
	}
	config, err := r.prepare(c)
	if err != nil || config == "" {
		return argv, err
	}
	return append([]string{r.Crun}, c.WithConfig(config)...), nil
}

// ofWorkload says whether c names the container of a workload image. What
// cannot be found out is crun's to answer.
func ofWorkload(c crun.Command) bool {
	spec, err := c.Running()
	if err != nil {
		return false
	}
	ours, err := isWorkload(spec.RootFS)
	return err == nil && ours
}

// Names of what prepare writes into the bundle.
const (
	specFile   = "ccrun-sim.json"
	configFile = "ccrun-vmm.json"
	rootDir    = "ccrun-root"
)

// prepare looks at the bundle and, for a workload image, makes it ready for a
// VMM. It returns the path of the configuration to use, or "" for Podman's.
func (r *Runtime) prepare(c crun.Command) (string, error) {
	spec, err := c.Open()
	if err != nil {
		return "", err
	}
	ours, err := isWorkload(spec.RootFS)
	if err != nil || !ours {
		return "", err
	}
	return r.prepareVM(c, spec)
}

func (r *Runtime) prepareVM(c crun.Command, spec *crun.Spec) (string, error) {
	image, err := os.OpenRoot(spec.RootFS)
	if err != nil {
		return "", fmt.Errorf("opening image: %w", err)
	}
	defer image.Close()
	shape, err := readTEEConfig(image)
	if err != nil {
		return "", err
	}
	hints, err := readHints(image)
	if err != nil {
		return "", err
	}
	ports, unforwarded := portsOf(spec, hints)
	warnings, err := machine.Judge(spec, shape, crun.HasInput(r.Stdin))
	if err != nil {
		return "", err
	}
	qemu, err := machine.FindQEMUIn(r.QEMURoot)
	if err != nil {
		return "", err
	}
	if err := spec.AddRequest(hints.DiskBytes); err != nil {
		return "", err
	}
	if err := spec.AddScratch(hints.ScratchBytes()); err != nil {
		return "", err
	}
	own, disk, err := volumefile.Attach(c, spec, hints.Volumes)
	if err != nil {
		return "", err
	}
	root := filepath.Join(spec.Bundle, rootDir)
	fw, err := r.firmwareFor(hints)
	if err != nil {
		return "", err
	}
	mounts, err := r.makeRoot(root, filepath.Join(spec.Bundle, configFile), fw, qemu)
	if err != nil {
		return "", err
	}
	direct := hints.Profile != "" && r.patchesKernels(qemu)
	if direct {
		unforwarded = append(unforwarded, oldQEMU)
	}
	vmm := Config{Version: 1, ImageDir: machine.InsideImage, FirmwareDir: machine.InsideFirmware, ChipDir: insideChip, QEMU: qemu,
		Direct: direct, TempDir: machine.InsideTemp, ReadOnly: spec.Root.Readonly && disk == nil, Ports: ports,
		Announce: spec.Annotations[krun.AnnounceAnnotation] == "1", Warnings: append(append(warnings, own...), unforwarded...)}
	if err := machine.Rewrite(spec, root, mounts, []string{insideBinary, "vmm", "--config", machine.InsideConfig}); err != nil {
		return "", err
	}
	if disk != nil {
		disk.Destination = path.Join(machine.InsideImage, disk.Destination)
		if err := spec.Set(volumefile.WithMount(spec.Mounts, disk), "mounts"); err != nil {
			return "", err
		}
	}
	if err := vmm.write(filepath.Join(spec.Bundle, configFile)); err != nil {
		return "", fmt.Errorf("writing VMM configuration: %w", err)
	}
	return writeSpec(filepath.Join(spec.Bundle, specFile), spec)
}

// portsOf is what to forward: an annotation, which older images have and users
// give, or what the image lists.
func portsOf(spec *crun.Spec, hints *krun.Hints) (ports []machine.Port, warnings []string) {
	list := machine.SplitPorts(spec.Annotations[krun.LabelPorts])
	if len(list) == 0 {
		list = hints.Ports
	}
	return machine.Forwards(list)
}

func readHints(image *os.Root) (*krun.Hints, error) {
	b, err := machine.ReadRegular(image, krun.HintsFile, krun.MaxHintsBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return new(krun.Hints), nil // an older image
	}
	if err != nil {
		return nil, err
	}
	return krun.DecodeHints(b)
}

func writeSpec(path string, s *crun.Spec) (string, error) {
	b, err := s.Encode()
	if err != nil {
		return "", fmt.Errorf("writing container configuration: %w", err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return "", fmt.Errorf("writing container configuration: %w", err)
	}
	return path, nil
}

// FindCrun looks the real runtime up. Podman may run us with hardly any
// environment.
func FindCrun() (string, error) {
	for _, name := range []string{"crun", "/usr/bin/crun", "/usr/local/bin/crun"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", hint.With(errors.New("finding crun: it is not installed on this host"), "apt-get install crun")
}
