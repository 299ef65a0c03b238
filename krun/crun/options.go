package crun

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// Runtime is one of ours: a column of the table.
type Runtime int

// The runtimes.
const (
	Krun Runtime = iota
	KrunSim
)

// verdict is what becomes of an option for a workload image, whose machine,
// command, environment and disk are measured and not the host's to choose. The
// zero value refuses.
type verdict int

const (
	refused  verdict = iota // the container is not created
	warned                  // taken out of the specification, and the user is told
	dropped                 // taken out, and nobody is told
	outside                 // left to crun, for the container around the machine: the workload does not notice
	honoured                // left to crun or read by the runtime, and the workload notices
)

// row is one option and what becomes of it.
type row struct {
	option    string // as podman-run(1) has it, or an annotation
	krun, sim verdict
	// given says what of the option the specification holds, in a sentence for
	// the user; nothing where it was not given. It is nil for what Podman does
	// not tell the runtime that creates the container.
	given func(*Machine) []string
	// drop takes the option out of the specification. It is nil where the
	// container should keep what it has.
	drop func(*Machine) error
	next string // the next step after a refusal
}

// table is the one place that says what becomes of Podman's options, in both
// runtimes: a verdict changes here and nowhere else. Not in it is what Podman
// does by itself, such as networks, --restart and --pull.
func table() []row {
	const rebuild = "build the image with what the workload needs"
	return []row{
		{"--init", outside, dropped, reaper, dropReaper, ""},
		{"--init's program", outside, dropped, mounts(reaperFile), dropMounts(reaperFile), ""},
		{"arguments, --entrypoint", outside, refused, arguments, put([]string{imageCommand}, "process", "args"),
			"leave them out, or build the image with the command you want"},
		{"--env", outside, warned, environment, dropEnvironment, rebuild},
		{"--volume, --mount", outside, warned, mounts(volume), dropMounts(volume), rebuild},
		{"--tmpfs", outside, warned, mounts(tmpfs), dropMounts(tmpfs), rebuild},
		{"--secret", outside, warned, mounts(secretFile), dropMounts(secretFile), rebuild},
		{"--read-only-tmpfs", outside, dropped, mounts(podmansTmpfs), dropMounts(podmansTmpfs), rebuild},
		{"mounts.conf(5)", outside, dropped, mounts(subscriptions), dropMounts(subscriptions), rebuild},
		{"--volume's propagation", outside, dropped, propagation, remove("linux", "rootfsPropagation"), rebuild},
		{"--user", outside, dropped, user, dropUser, rebuild},
		{"--umask", outside, dropped, umask, remove("process", "user", "umask"), rebuild},
		{"--workdir", outside, dropped, workdir, put("/", "process", "cwd"), rebuild},
		{"--cap-add, --cap-drop, --privileged", outside, dropped, capabilities, dropCapabilities, ""},
		{"--security-opt no-new-privileges", outside, dropped, newPrivileges, put(true, "process", "noNewPrivileges"), ""},
		{"--security-opt seccomp, label, apparmor", outside, outside, confinement, nil, ""},
		{"--read-only", outside, honoured, readOnly, put(false, "root", "readonly"), rebuild},
		{"--ulimit", outside, outside, limits, remove("process", "rlimits"), rebuild},
		{"--shm-size", outside, outside, shmSize, nil, rebuild},
		{"--hostname", outside, outside, hostname, nil, rebuild},
		{"--sysctl", outside, outside, sysctls, remove("linux", "sysctl"), rebuild},
		{"--device", outside, outside, devices, remove("linux", "devices"), rebuild},
		{"--memory", outside, warned, memory, raiseMemory, "give the container more"},
		{"--pids-limit", outside, dropped, threads, raiseThreads, "give the container more"},
		{"--cpus, --cpuset-cpus, --cpu-shares", outside, outside, processors, remove("linux", "resources", "cpu"), rebuild},
		{"--tty", outside, outside, terminal, nil, ""},
		{"krun.cpus", outside, outside, annotation("krun.cpus"), remove("annotations", "krun.cpus"), rebuild},
		{"krun.ram_mib", outside, outside, annotation("krun.ram_mib"), remove("annotations", "krun.ram_mib"), rebuild},
		{VariantAnnotation, refused, outside, otherVariant, remove("annotations", VariantAnnotation), ""},
		{handlerAnnotation, outside, dropped, annotation(handlerAnnotation), remove("annotations", handlerAnnotation), ""},
		{krun.LabelFirmware, honoured, outside, annotation(krun.LabelFirmware), remove("annotations", krun.LabelFirmware), ""},
		{krun.LabelPorts, outside, honoured, annotation(krun.LabelPorts), remove("annotations", krun.LabelPorts), ""},

		{"--interactive", outside, outside, nil, nil, ""},
		{"--add-host, --dns", outside, outside, nil, nil, ""}, // in files that are mounted in any case
		{"--health-cmd", outside, outside, nil, nil, ""},      // an exec of Podman's
		{"exec", outside, outside, nil, nil, ""},              // crun refuses, or finds no program
	}
}

// Judge applies the table to the specification of m. The warnings are for
// whoever started the container.
func (m *Machine) Judge(by Runtime) (warnings []string, err error) {
	for _, r := range table() {
		v := r.krun
		if by == KrunSim {
			v = r.sim
		}
		told, err := m.apply(r, v)
		if err != nil {
			return nil, err
		}
		warnings = append(warnings, told...)
	}
	return warnings, nil
}

func (m *Machine) apply(r row, v verdict) (warnings []string, err error) {
	if r.given == nil || v == outside || v == honoured {
		return nil, nil
	}
	given := r.given(m)
	if len(given) == 0 {
		return nil, nil
	}
	if v == warned {
		warnings = given
	} else if v != dropped {
		return nil, hint.With(errors.New(strings.Join(given, "; ")), "%s", r.next)
	}
	if r.drop == nil {
		return warnings, nil
	}
	if err := r.drop(m); err != nil {
		return nil, fmt.Errorf("taking out %s: %w", r.option, err)
	}
	return warnings, nil
}
