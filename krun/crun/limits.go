package crun

import (
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccrun/ccrun/bounded"
)

// hostname is asked for unless it is the beginning of the container's id or,
// with --network host, the host's own.
func hostname(m *Machine) []string {
	host, err := os.Hostname()
	podmans := strings.HasPrefix(m.ID, m.Hostname) || err == nil && m.Hostname == host
	return one(!podmans, "host name %q does not reach the workload, whose name is its id", m.Hostname)
}

// maxHostsBytes bounds a hosts file.
const maxHostsBytes = 1 << 20

// addedHosts finds lines in the container's /etc/hosts that Podman did not
// write by itself: it begins with the host's and knows the container's names.
func addedHosts(m *Machine) []string {
	i := slices.IndexFunc(m.Mounts, func(mount specs.Mount) bool { return path.Clean(mount.Destination) == "/etc/hosts" })
	if i < 0 {
		return nil
	}
	inside, err := hostsOf(m.Mounts[i].Source)
	if err != nil {
		return nil
	}
	outside, _ := hostsOf("/etc/hosts")
	podmans := []string{"localhost", "host.containers.internal", "host.docker.internal", m.Hostname}
	inPod := slices.ContainsFunc(slices.Collect(maps.Keys(inside)), infraName.MatchString)
	var given []string
	for names, address := range inside {
		// A line with a name of Podman's, such as the container's, is Podman's. So
		// are those of a pod and, on its loopback, of its containers.
		own := slices.ContainsFunc(strings.Fields(names), func(n string) bool { return slices.Contains(podmans, n) })
		if outside[names] == "" && !own && !infraName.MatchString(names) && !(inPod && address == "127.0.0.1") {
			given = append(given, names)
		}
	}
	slices.Sort(given)
	return one(len(given) > 0, "names of --add-host do not reach the workload: %s", strings.Join(given, ", "))
}

// infraName is in the line of a pod's own names.
var infraName = regexp.MustCompile(`(^| )[0-9a-f]{12}-infra( |$)`)

// hostsOf is the names of each line of a hosts file, and their address.
func hostsOf(file string) (map[string]string, error) {
	b, err := bounded.Regular(file, maxHostsBytes)
	if err != nil {
		return nil, err
	}
	lines := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		if f := strings.Fields(line); len(f) > 1 {
			lines[strings.Join(f[1:], " ")] = f[0]
		}
	}
	return lines, nil
}

// podmansSysctl is what Podman sets without being asked.
const podmansSysctl = "net.ipv4.ping_group_range"

func sysctls(m *Machine) []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(m.linux().Sysctl)), func(name string) bool { return name == podmansSysctl })
	return one(len(names) > 0, "sysctls hold for the container around the VM and do not reach the workload's kernel: %s", strings.Join(names, ", "))
}

// machinesDevice is one that every confidential machine gets in any case.
func machinesDevice(d specs.LinuxDevice) bool { return d.Path == "/dev/kvm" || d.Path == "/dev/sev" }

// devices of the host are nodes or, for a rootless Podman, mounts.
func devices(m *Machine) []string {
	node := slices.ContainsFunc(m.linux().Devices, func(d specs.LinuxDevice) bool { return !machinesDevice(d) })
	return one(node || slices.ContainsFunc(m.Mounts, boundDevice), "devices of the host are not visible inside the VM")
}

func boundDevice(m specs.Mount) bool {
	d := path.Clean(m.Destination)
	return m.Type == "bind" && strings.HasPrefix(d, "/dev/") && !slices.Contains([]string{"/dev/shm", "/dev/mqueue", "/dev/kvm", "/dev/sev"}, d)
}

func dropDevices(m *Machine) error {
	if err := m.Set(slices.DeleteFunc(slices.Clone(m.Mounts), boundDevice), "mounts"); err != nil {
		return err
	}
	return m.Set(slices.DeleteFunc(slices.Clone(m.linux().Devices), func(d specs.LinuxDevice) bool { return !machinesDevice(d) }), "linux", "devices")
}

func processors(m *Machine) []string {
	return one(m.resources().CPU != nil, "limits of processor time hold for the VM as a whole; the number of its processors is measured")
}

// memory is given where it is too little: the guest's is measured, so a limit
// cannot shrink it, only kill it.
func memory(m *Machine) []string {
	limit := m.resources().Memory
	if limit == nil || limit.Limit == nil || *limit.Limit <= 0 || *limit.Limit >= m.MemoryBytes {
		return nil
	}
	return one(true, "memory limit raised from %d to %d MiB: the VM's memory is measured and cannot be less", *limit.Limit>>20, m.MemoryBytes>>20)
}

func raiseMemory(m *Machine) error {
	limit := *m.resources().Memory
	limit.Limit, limit.Reservation = &m.MemoryBytes, nil
	if limit.Swap != nil && *limit.Swap > 0 && *limit.Swap < m.MemoryBytes {
		limit.Swap = &m.MemoryBytes
	}
	return m.Set(limit, "linux", "resources", "memory")
}

// threads are given where they are too few.
func threads(m *Machine) []string {
	n := m.resources().Pids
	return one(n != nil && n.Limit > 0 && n.Limit < m.Threads, "the number of processes raised to %d, which the VM's monitor takes", m.Threads)
}

func raiseThreads(m *Machine) error {
	return m.Set(m.Threads, "linux", "resources", "pids", "limit")
}

// variant of libkrun other than the one for SEV.
func otherVariant(m *Machine) []string {
	have := m.Annotations[VariantAnnotation]
	return one(have != "" && have != "sev", "annotation %s is %q, expected sev for this image", VariantAnnotation, have)
}

func passt(m *Machine) []string {
	_, given := m.Annotations[passtAnnotation]
	return one(given, "annotation %s would leave the guest without a network", passtAnnotation)
}
