package crun

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// Runtime is what starts the machine: a column of the table.
type Runtime int

// The runtimes.
const (
	Krun Runtime = iota // krun with libkrun
	QEMU                // krun with QEMU, and krun-sim
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
// docs/podman-differences.md has the same table for users.
func table() []row {
	return slices.Concat(ofProcess(), ofMounts(), ofMachine(), ofAnnotations(), unseen())
}

func ofProcess() []row {
	return []row{
		{"--init", warned, warned, reaper, dropReaper, ""},
		{"--init's program", dropped, dropped, mounts(reaperFile), dropMounts(reaperFile), ""},
		{"arguments, --entrypoint", refused, refused, arguments, put([]string{imageCommand}, "process", "args"),
			"leave them out, or build the image with the command you want"},
		{"--tty", refused, refused, terminal, put(false, "process", "terminal"), "leave out -t: the workload's output arrives without"},
		{"--interactive", refused, refused, interactive, dropInteractive, "leave out -i: give the workload its input over the network, or build it into the image"},
		{"--env", warned, warned, environment, dropEnvironment, ""},
		{"--user, --group-add", warned, warned, user, dropUser, ""},
		{"--umask", warned, warned, umask, remove("process", "user", "umask"), ""},
		{"--workdir", warned, warned, workdir, put("/", "process", "cwd"), ""},
		{"--cap-add, --cap-drop, --privileged", warned, warned, capabilities, nil, ""},
		{"the monitor's capabilities", dropped, dropped, anyProcess, dropCapabilities, ""},
		{"--security-opt no-new-privileges", warned, warned, noNewPrivileges, nil, ""},
		{"the monitor's privileges", dropped, dropped, newPrivileges, put(true, "process", "noNewPrivileges"), ""},
		{"--security-opt seccomp, label, apparmor", outside, outside, confinement, nil, ""},
		{"--ulimit", warned, warned, limits, dropLimits, ""},
	}
}

func ofMounts() []row {
	return []row{
		{"--volume, --mount", warned, warned, volumes, dropMounts(volume), ""},
		{"--tmpfs", warned, warned, mounts(tmpfs), dropMounts(tmpfs), ""},
		{"--secret", warned, warned, mounts(secretFile), dropMounts(secretFile), ""},
		{"--read-only-tmpfs", dropped, dropped, mounts(podmansTmpfs), dropMounts(podmansTmpfs), ""},
		{"mounts.conf(5)", dropped, dropped, mounts(subscriptions), dropMounts(subscriptions), ""},
		{"--volume's propagation", dropped, dropped, propagation, remove("linux", "rootfsPropagation"), ""},
		{"--read-only", honoured, honoured, readOnly, nil, ""}, // AddScratch
		{"--read-only's disk", dropped, outside, closedDisk, openDisk, ""},
		{"--shm-size", warned, warned, shmSize, nil, ""},
		{"--add-host", warned, warned, addedHosts, nil, ""},
	}
}

func ofMachine() []row {
	return []row{
		{"--network host", refused, outside, hostNetwork, nil,
			"give the container a network of its own, as without --network, and publish its ports with -p"},
		{"--hostname", warned, warned, hostname, nil, ""},
		{"--sysctl", warned, warned, sysctls, nil, ""},
		{"--device", warned, warned, devices, dropDevices, ""},
		{"--memory", warned, warned, memory, raiseMemory, ""},
		{"--pids-limit", warned, warned, threads, raiseThreads, ""},
		{"--cpus, --cpuset-cpus, --cpu-shares", honoured, honoured, processors, remove("linux", "resources", "cpu"), ""},
	}
}

func ofAnnotations() []row {
	const leaveOut = "leave the annotation out"
	return []row{
		{"krun.cpus", warned, warned, annotation("krun.cpus"), remove("annotations", "krun.cpus"), ""},
		{"krun.ram_mib", warned, warned, annotation("krun.ram_mib"), remove("annotations", "krun.ram_mib"), ""},
		{passtAnnotation, refused, refused, passt, remove("annotations", passtAnnotation), leaveOut},
		{VariantAnnotation, refused, refused, otherVariant, remove("annotations", VariantAnnotation), leaveOut},
		{HandlerAnnotation, warned, warned, annotation(HandlerAnnotation), remove("annotations", HandlerAnnotation), ""},
		{krun.LabelFirmware, honoured, outside, annotation(krun.LabelFirmware), remove("annotations", krun.LabelFirmware), ""},
		{krun.LabelPorts, outside, honoured, annotation(krun.LabelPorts), remove("annotations", krun.LabelPorts), ""},
	}
}

// unseen is what no runtime is told when it creates a container.
func unseen() []row {
	return []row{
		{"--dns", outside, outside, nil, nil, ""},         // in a file that is mounted in any case
		{"--publish", outside, outside, nil, nil, ""},     // of the container's network
		{"--stop-signal", outside, outside, nil, nil, ""}, // Podman's kill
		{"--health-cmd", outside, outside, nil, nil, ""},  // Podman's exec, which is refused
		{"cp", outside, outside, nil, nil, ""},            // Podman's own
	}
}

// Judge applies the table to the specification of m. The warnings are for
// whoever started the container.
func (m *Machine) Judge(by Runtime) (warnings []string, err error) {
	for _, r := range table() {
		v := r.krun
		if by == QEMU {
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
