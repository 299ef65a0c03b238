package sim

import (
	"errors"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ociVersion is what every crun since Debian 12's understands. Podman 5 writes
// a later one, of which nothing is used here.
const ociVersion = "1.0.2"

// Least limits for the VMM: QEMU's own code, its translation cache of 256 MiB,
// the memory files of kernel and initrd; threads of QEMU and of the VMM.
const (
	vmmMemoryBytes = 512 << 20
	vmmThreads     = 128
)

// judge takes what has no effect out of s, the container that Podman asked
// for, and returns what the user should know.
func judge(s *crun.Spec, shape *krun.TEEConfig, interactive bool) (warnings []string, err error) {
	if s.Process == nil || s.Linux == nil {
		return nil, errors.New("container has no process or linux section")
	}
	m := crun.Machine{Spec: s, MemoryBytes: int64(shape.MemoryMiB)<<20 + vmmMemoryBytes, Threads: vmmThreads, Interactive: interactive}
	return m.Judge(crun.KrunSim)
}

// rewrite turns s into the container of a VMM that has the image's root at
// insideImage, and is itself rooted in rootDir, which is empty but for mount
// points. mounts are what of the host the VMM sees.
func rewrite(s *crun.Spec, rootDir string, mounts []specs.Mount) error {
	image := specs.Mount{Destination: insideImage, Type: "bind", Source: s.RootFS,
		Options: []string{"rbind", "rprivate", "nosuid", "nodev", accessOption(s.Root.Readonly)}}
	for _, member := range []struct {
		value any
		path  []string
	}{
		{ociVersion, []string{"ociVersion"}},
		{specs.Root{Path: rootDir, Readonly: true}, []string{"root"}},
		{slices.Concat(s.Mounts, mounts, []specs.Mount{image}), []string{"mounts"}},
		{[]string{insideBinary, "vmm", "--config", insideConfig}, []string{"process", "args"}},
		{environment(s.Process.Env), []string{"process", "env"}},
	} {
		if err := s.Set(member.value, member.path...); err != nil {
			return err
		}
	}
	return nil
}

func accessOption(readOnly bool) string {
	if readOnly {
		return "ro"
	}
	return "rw"
}

// environment is the VMM's: nothing of the image's.
func environment(of []string) []string {
	env := []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	for _, e := range of {
		if strings.HasPrefix(e, "TERM=") || strings.HasPrefix(e, "HOSTNAME=") {
			env = append(env, e)
		}
	}
	return env
}
