// Package volumefile keeps volume files on the host: see krun.VolumesOffset for
// what is in one. It is the host's, and protects it from mistakes; what a guest
// trusts is in the guest.
//
// Why one file, and one way for both runtimes: crun gives a confidential guest
// one disk, /disk.img, and libkrun has no call for a second. Without root nothing
// can make one disk of two files. So the volumes of a workload are areas of one
// file, at fixed places behind a hole, and the container's own disk.img is copied
// into that hole when it starts. A copy is made once for each container; scratch
// is part of it and survives the container's stops.
package volumefile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// SystemDir is where volume files are that root's Podman uses.
const SystemDir = "/var/lib/ccrun/volumes"

const suffix = ".vol"

// Dir is where this user's volume files are: SystemDir for root of the host, else
// the user's own, as the runtime of a rootless Podman is root of a user namespace
// only.
func Dir() (string, error) { return dirOf(os.Geteuid(), os.Getenv, "/proc/self/uid_map") }

func dirOf(euid int, getenv func(string) string, uidMap string) (string, error) {
	m, err := os.ReadFile(uidMap)
	if err != nil {
		return "", fmt.Errorf("reading user namespace: %w", err)
	}
	if f := strings.Fields(string(m)); euid == 0 && len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295" {
		return SystemDir, nil
	}
	switch data, home := getenv("XDG_DATA_HOME"), getenv("HOME"); {
	case filepath.IsAbs(data):
		return filepath.Join(data, "ccrun", "volumes"), nil
	case filepath.IsAbs(home):
		return filepath.Join(home, ".local/share/ccrun/volumes"), nil
	}
	return "", errors.New("neither XDG_DATA_HOME nor HOME is set, of which a rootless runtime needs one")
}

// Path is that of the volume file that name means: one in dir, or an absolute
// path.
func Path(dir, name string) (string, error) {
	switch {
	case filepath.IsAbs(name) && filepath.Clean(name) == name && name != "/":
		return name, nil
	case kbs.ValidWorkloadID(name) && name[0] != '.':
		return filepath.Join(dir, name+suffix), nil
	}
	return "", hint.Usagef("volume file %.80q: expected a workload's id, or a clean absolute path", name)
}

// Names lists the volume files in dir.
func Names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && e.Type().IsRegular() && kbs.ValidWorkloadID(name) {
			names = append(names, name)
		}
	}
	return names, nil
}
