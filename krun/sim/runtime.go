package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/ccrun/ccrun/krun/crun"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// RuntimeName is the name under which ccrun-sim is an OCI runtime.
const RuntimeName = "krun-sim"

// Runtime is the OCI runtime: crun, except that the containers of workload
// images get a VMM for a process.
type Runtime struct {
	Binary   string // path of ccrun-sim itself, for use inside the container
	Root     string // of the simulated platform; SampleRoot in the command line wins
	Firmware string // directory; empty: Root/firmware
	Crun     string // path of the real runtime
	HostRoot string // "/", but for tests
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
		r.Firmware = dir
	}
	argv := append([]string{r.Crun}, c.Args()...)
	if !c.Creates() {
		return argv, nil
	}
	for _, dir := range []string{r.Root, r.Firmware} {
		if dir != "" && !filepath.IsAbs(dir) { // Podman chooses our working directory
			return nil, fmt.Errorf("directory %q: expected an absolute path", dir)
		}
	}
	config, err := r.prepare(c.Bundle, c.Config)
	if err != nil || config == "" {
		return argv, err
	}
	return append([]string{r.Crun}, c.WithConfig(config)...), nil
}

// Names of what prepare writes into the bundle.
const (
	specFile   = "ccrun-sim.json"
	configFile = "ccrun-vmm.json"
	rootDir    = "ccrun-root"
)

// maxSpecBytes bounds a bundle's configuration.
const maxSpecBytes = 16 << 20

// prepare looks at the bundle and, for a workload image, makes it ready for a
// VMM. It returns the path of the configuration to use, or "" for Podman's.
func (r *Runtime) prepare(bundle, config string) (string, error) {
	if bundle == "" {
		bundle = "."
	}
	bundle, err := filepath.Abs(bundle)
	if err != nil {
		return "", fmt.Errorf("finding bundle: %w", err)
	}
	if config == "" {
		config = "config.json"
	}
	if !filepath.IsAbs(config) {
		config = filepath.Join(bundle, config)
	}
	spec, err := readSpec(config)
	if err != nil {
		return "", err
	}
	if spec.Root == nil {
		return "", nil // crun says it better
	}
	if !filepath.IsAbs(spec.Root.Path) {
		spec.Root.Path = filepath.Join(bundle, spec.Root.Path)
	}
	ours, err := isWorkload(spec.Root.Path)
	if err != nil || !ours {
		return "", err
	}
	return r.prepareVM(bundle, spec)
}

func (r *Runtime) prepareVM(bundle string, spec *specs.Spec) (string, error) {
	ports, err := ParsePorts(spec.Annotations[PortsAnnotation])
	if err != nil {
		return "", err
	}
	image, err := os.OpenRoot(spec.Root.Path)
	if err != nil {
		return "", fmt.Errorf("opening image: %w", err)
	}
	defer image.Close()
	shape, err := readTEEConfig(image)
	if err != nil {
		return "", err
	}
	qemu, err := findQEMU()
	if err != nil {
		return "", err
	}
	p := plan{rootDir: filepath.Join(bundle, rootDir), memoryBytes: int64(shape.MemoryMiB)<<20 + vmmMemoryBytes}
	if p.mounts, err = r.makeRoot(p.rootDir, filepath.Join(bundle, configFile), qemu); err != nil {
		return "", err
	}
	vmm := Config{Version: 1, ImageDir: insideImage, FirmwareDir: insideFirmware, ChipDir: insideChip, QEMU: qemu,
		TempDir: insideTemp, ReadOnly: spec.Root.Readonly, Ports: ports}
	if vmm.Warnings, err = p.rewrite(spec); err != nil {
		return "", err
	}
	if err := vmm.write(filepath.Join(bundle, configFile)); err != nil {
		return "", fmt.Errorf("writing VMM configuration: %w", err)
	}
	return writeSpec(filepath.Join(bundle, specFile), spec)
}

func readSpec(path string) (*specs.Spec, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading container configuration: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSpecBytes+1))
	if err != nil {
		return nil, fmt.Errorf("reading container configuration: %w", err)
	}
	if len(b) > maxSpecBytes {
		return nil, fmt.Errorf("container configuration %s is larger than %d bytes", path, maxSpecBytes)
	}
	var s specs.Spec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("reading container configuration %s: %w", path, err)
	}
	return &s, nil
}

func writeSpec(path string, s *specs.Spec) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil {
		return "", fmt.Errorf("writing container configuration: %w", err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
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
	return "", noCrunError{}
}

type noCrunError struct{}

func (noCrunError) Error() string { return "finding crun: it is not installed on this host" }
func (noCrunError) Hint() string  { return "apt-get install crun" }
