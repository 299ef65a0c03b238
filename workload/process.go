package workload

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
	"github.com/ccrun/ccrun/workload/rootfs"
)

// processOf is what the guest agent runs: the image's own configuration, as
// Podman reads it. Whether that can start, process.Decode says.
func processOf(c imgspec.ImageConfig, warn func(string)) krun.Process {
	dir := c.WorkingDir
	if dir != "" && dir[0] != '/' {
		dir = path.Join("/", dir)
	}
	return krun.Process{
		Entrypoint: orEmpty(c.Entrypoint), Cmd: orEmpty(c.Cmd), Env: variables(c.Env, warn),
		WorkingDir: dir, User: c.User, StopSignal: c.StopSignal, Volumes: c.Volumes,
	}
}

// variables gives an entry without "=" the empty value, as Podman does.
func variables(env []string, warn func(string)) []string {
	out := make([]string, 0, len(env))
	for _, e := range env {
		switch name, _, ok := strings.Cut(e, "="); {
		case name == "":
			warn(fmt.Sprintf("leaving out the image's variable %.40q, which has no name", e))
		case !ok:
			out = append(out, e+"=")
		default:
			out = append(out, e)
		}
	}
	return out
}

// checkProcess refuses before anything is registered what the agent would
// refuse at boot. The agent's own code says so.
func checkProcess(proc []byte) error {
	_, err := process.Decode(proc)
	return err
}

// orEmpty makes nil an empty list: the agent's decoder, like libkrun's C one,
// expects a list.
func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// maxRange bounds what one EXPOSE may stand for.
const maxRange = 1024

// exposed is what an image's EXPOSE lists, in the form NUMBER/PROTOCOL, ranges
// spelled out and sorted. It decides nothing: what cannot be read is left out.
func exposed(ports map[string]struct{}, warn func(string)) []string {
	var list []string
	for p := range ports {
		expanded := expandPort(p)
		if expanded == nil {
			warn(fmt.Sprintf("leaving out EXPOSE %.40q: expected NUMBER or NUMBER-NUMBER, with /tcp, /udp or /sctp", p))
		}
		list = append(list, expanded...)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// expandPort returns nil for what is no port or range of ports.
func expandPort(p string) (list []string) {
	numbers, proto, ok := strings.Cut(strings.ToLower(p), "/")
	if !ok {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil
	}
	first, last, ok := strings.Cut(numbers, "-")
	if !ok {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || from == 0 || to < from || to-from >= maxRange {
		return nil
	}
	for n := from; n <= to; n++ {
		list = append(list, fmt.Sprintf("%d/%s", n, proto))
	}
	return list
}

// addProcess puts the image configuration where the agent looks for it, and
// makes the directories that it mounts on or writes to. What an image has in
// place of the latter, perhaps a link, stays.
func addProcess(tree *rootfs.Tree, proc []byte) error {
	if err := tree.AddFile(krun.ProcessPath, 0o400, 0, 0, proc); err != nil {
		return err
	}
	for _, d := range []struct {
		path  string
		mode  uint32
		mount bool
	}{
		{"/proc", 0o555, true}, {"/sys", 0o555, true}, {"/dev", 0o755, true},
		{"/run", 0o755, false}, {"/tmp", 0o1777, false}, {"/etc", 0o755, false},
	} {
		if !d.mount && tree.Lookup(d.path) != nil {
			continue
		}
		if err := tree.EnsureDir(d.path, d.mode); err != nil {
			return err
		}
	}
	return nil
}

// addDirectories makes those of the image's VOLUMEs and its WorkingDir that it
// lacks, as the user's own, which is what Podman does when it makes a container.
// What is there, with its content, stays.
func addDirectories(tree *rootfs.Tree, c imgspec.ImageConfig, volumes []krun.Volume, who process.Credentials) error {
	for _, dir := range append(slices.Sorted(maps.Keys(c.Volumes)), c.WorkingDir) {
		if err := tree.MakeDir(dir, 0o755, uint32(who.UID), uint32(who.GID)); err != nil {
			return hint.With(fmt.Errorf("making the image's VOLUME and WORKDIR directories: %w", err), "correct VOLUME or WORKDIR of the image")
		}
	}
	for _, v := range volumes {
		if err := tree.MakeDir(v.Path, 0o755, uint32(who.UID), uint32(who.GID)); err != nil {
			return hint.With(fmt.Errorf("making the directory of volume %s: %w", v.Name, err), "give the volume another path")
		}
	}
	return nil
}

// unheeded says which fields of the configuration do less in a guest than
// under Podman.
func unheeded(c imgspec.ImageConfig, healthcheck bool, o *DiskOptions) (out []string) {
	if healthcheck {
		out = append(out, "the image's HEALTHCHECK is not run: Podman cannot enter the guest; probe a port of it from outside")
	}
	dirs := passingVolumes(c.Volumes, o.Volumes)
	if len(dirs) == 0 {
		return out
	}
	list := strings.Join(dirs, " ")
	switch o.Scratch.Kind {
	case krun.ScratchMemory, krun.ScratchNone:
		out = append(out, fmt.Sprintf("what is written to the image's VOLUMEs (%s) is in the guest's memory and gone when it ends; "+
			"--volume NAME:PATH keeps it, --fs btrfs with --scratch SIZE as long as the container", list))
	case krun.ScratchDisk:
		out = append(out, fmt.Sprintf("what is written to the image's VOLUMEs (%s) is lost with the container, `podman run --rm` and every update of the image included; "+
			"--volume NAME:PATH keeps it", list))
	}
	return out
}

// passingVolumes are the image's VOLUMEs that no volume of the workload's holds.
func passingVolumes(image map[string]struct{}, kept []krun.Volume) (dirs []string) {
	for _, dir := range slices.Sorted(maps.Keys(image)) {
		held := func(v krun.Volume) bool { return within(path.Join("/", dir), v.Path) }
		if !slices.ContainsFunc(kept, held) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func within(dir, of string) bool { return dir == of || strings.HasPrefix(dir, of+"/") }
