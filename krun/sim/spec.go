package sim

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ociVersion is what every crun since Debian 12's understands. Podman 5 writes
// a later one, of which nothing is used here.
const ociVersion = "1.0.2"

// handlerAnnotation would make crun start libkrun by itself, or, built without
// libkrun, silently a plain container.
const handlerAnnotation = "run.oci.handler"

// imageEntrypoint is the entry point of every workload image: the stub that
// runs where no krun runtime does.
const imageEntrypoint = "/entrypoint"

// argsError reports a command that cannot be honoured.
type argsError struct{}

func (argsError) Error() string {
	return "arguments or an entry point given at launch do not reach the workload: its command is part of its measured identity"
}
func (argsError) Hint() string { return "leave them out, or build the image with the command you want" }

// plan is what rewrite needs to know besides the spec.
type plan struct {
	rootDir     string        // what the VMM's container is rooted in: empty but for mount points
	mounts      []specs.Mount // what of the host the VMM sees
	memoryBytes int64         // what the machine needs at most
}

// rewrite turns s, the container that Podman asked for, into the container of
// a VMM that has the image's root at insideImage. It returns what the user
// should know, and refuses what would silently have no effect.
func (p plan) rewrite(s *specs.Spec) (warnings []string, err error) {
	if s.Process == nil || s.Root == nil || s.Linux == nil {
		return nil, errors.New("container has no process, root or linux section")
	}
	if err := checkArgs(s.Process.Args); err != nil {
		return nil, err
	}
	warnings = append(warnings, envWarnings(s.Process.Env)...)
	image := specs.Mount{Destination: insideImage, Type: "bind", Source: s.Root.Path,
		Options: []string{"rbind", "rprivate", "nosuid", "nodev", accessOption(s.Root.Readonly)}}
	kept, dropped := keepMounts(s.Mounts)
	for _, d := range dropped {
		warnings = append(warnings, fmt.Sprintf("mount %s is not visible inside the VM", d))
	}
	s.Version = ociVersion
	s.Root = &specs.Root{Path: p.rootDir, Readonly: true}
	s.Mounts = append(append(kept, p.mounts...), image)
	delete(s.Annotations, handlerAnnotation)
	rewriteProcess(s.Process)
	// Shared propagation, which a volume can ask for, would carry our mounts
	// of the host's /usr back into the bundle, where Podman cleans up.
	s.Linux.RootfsPropagation = ""
	return append(warnings, p.raiseLimits(s.Linux)...), nil
}

func accessOption(readOnly bool) string {
	if readOnly {
		return "ro"
	}
	return "rw"
}

// rewriteProcess makes p the VMM: root in a container that holds nothing, with
// no capability but for binding the workload's ports. The user to run the
// workload as is measured with it, so --user has nothing to say here.
func rewriteProcess(p *specs.Process) {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, e := range p.Env {
		if strings.HasPrefix(e, "TERM=") || strings.HasPrefix(e, "HOSTNAME=") {
			env = append(env, e)
		}
	}
	p.Args = []string{insideBinary, "vmm", "--config", insideConfig}
	p.Cwd, p.Env, p.User = "/", env, specs.User{}
	p.NoNewPrivileges = true
	var caps []string
	const bind = "CAP_NET_BIND_SERVICE"
	if p.Capabilities != nil && slices.Contains(p.Capabilities.Bounding, bind) {
		caps = []string{bind}
	}
	p.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps}
}

// checkArgs refuses what the guest would silently ignore.
func checkArgs(args []string) error {
	if len(args) >= 2 && (args[0] == "/dev/init" || args[0] == "/run/podman-init") && args[1] == "--" {
		args = args[2:] // podman run --init: the guest agent reaps anyway
	}
	if len(args) != 1 || args[0] != imageEntrypoint {
		return argsError{}
	}
	return nil
}

// podmanEnv is what Podman sets without being asked.
var podmanEnv = []string{"PATH", "TERM", "HOME", "HOSTNAME", "container",
	"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"}

// envWarnings names what the workload will not get. Values may be secret.
func envWarnings(env []string) []string {
	var warnings []string
	for _, e := range env {
		if name, _, _ := strings.Cut(e, "="); !slices.Contains(podmanEnv, name) {
			warnings = append(warnings, fmt.Sprintf("environment variable %q does not reach the workload", name))
		}
	}
	return warnings
}

// keepMounts divides mounts into those the VMM's container needs and those
// that were meant for the workload, which no host directory can reach.
func keepMounts(mounts []specs.Mount) (kept []specs.Mount, dropped []string) {
	for _, m := range mounts {
		d := path.Clean(m.Destination)
		switch {
		case d == "/proc", d == "/dev", strings.HasPrefix(d, "/dev/"), d == "/sys", strings.HasPrefix(d, "/sys/"),
			d == "/etc/resolv.conf", d == "/etc/hosts", d == "/etc/hostname", d == "/run/.containerenv":
			kept = append(kept, m)
		case m.Type == "tmpfs" && (d == "/tmp" || d == "/run" || d == "/var/tmp"), d == "/run/secrets", d == "/run/podman-init":
			// Podman's own doing, and of no use to the VMM.
		default:
			dropped = append(dropped, d)
		}
	}
	return kept, dropped
}

// Least limits for the VMM: QEMU's own code, its translation cache of 256 MiB,
// the memory files of kernel and initrd; threads of QEMU and of the VMM.
const (
	vmmMemoryBytes = 512 << 20
	vmmPids        = 128
)

// raiseLimits lifts limits below what the machine takes: the guest's memory
// and processors are measured, so a limit cannot shrink them, only kill them.
func (p plan) raiseLimits(l *specs.Linux) (warnings []string) {
	if l.Resources == nil {
		return nil
	}
	if m := l.Resources.Memory; m != nil && m.Limit != nil && *m.Limit > 0 && *m.Limit < p.memoryBytes {
		warnings = append(warnings, fmt.Sprintf("memory limit raised from %d to %d MiB: the VM's memory is measured and cannot be less",
			*m.Limit>>20, p.memoryBytes>>20))
		need := p.memoryBytes
		m.Limit = &need
		m.Reservation = nil
		if m.Swap != nil && *m.Swap > 0 && *m.Swap < need {
			m.Swap = &need
		}
	}
	if n := l.Resources.Pids; n != nil && n.Limit > 0 && n.Limit < vmmPids {
		n.Limit = vmmPids
	}
	return warnings
}
