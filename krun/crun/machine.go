package crun

import (
	"fmt"
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Annotations that crun acts on.
const (
	VariantAnnotation = "krun.variant"
	// HandlerAnnotation would make crun start libkrun by itself or, built
	// without libkrun, silently a plain container.
	HandlerAnnotation = "run.oci.handler"
	// passtAnnotation would give the guest an ethernet device in place of TSI,
	// which the agent cannot configure.
	passtAnnotation = "krun.use_passt"
)

// Machine is the specification of a container that will hold a virtual
// machine, and what that needs at least.
type Machine struct {
	*Spec
	MemoryBytes int64 // of the machine and its monitor
	Threads     int64 // of the monitor
	Interactive bool  // the container's standard input is somebody's: HasInput
}

// process is the container's, or an empty one.
func (m *Machine) process() specs.Process {
	if m.Process == nil {
		return specs.Process{}
	}
	return *m.Process
}

func (m *Machine) linux() specs.Linux {
	if m.Linux == nil {
		return specs.Linux{}
	}
	return *m.Linux
}

func (m *Machine) resources() specs.LinuxResources {
	if r := m.linux().Resources; r != nil {
		return *r
	}
	return specs.LinuxResources{}
}

// one is a single sentence, or none.
func one(given bool, format string, a ...any) []string {
	if !given {
		return nil
	}
	return []string{fmt.Sprintf(format, a...)}
}

// put drops an option by another value, remove by none.
func put(value any, path ...string) func(*Machine) error {
	return func(m *Machine) error { return m.Set(value, path...) }
}

func remove(path ...string) func(*Machine) error { return put(nil, path...) }

func annotation(name string) func(*Machine) []string {
	return func(m *Machine) []string {
		_, given := m.Annotations[name]
		return one(given, "annotation %s has no effect", name)
	}
}

// HasInput says whether a runtime whose standard input is stdin creates a
// container with --interactive: conmon then makes a pipe, else it opens
// /dev/null.
func HasInput(stdin *os.File) bool {
	info, err := stdin.Stat()
	return err == nil && info.Mode()&os.ModeNamedPipe != 0
}
