package wrapper

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun/crun"
)

// A pod of Podman's has an infra container: it holds the namespaces that the
// pod's containers share, and its only program sleeps until it is told to end.
// Podman starts it with the runtime of the pod. In a VM it would hold nothing,
// and on a host for SEV alone no VM of it would start.
//
// No annotation says reliably which container that is, and whoever believed one
// could be made to run somebody's program in the open. What counts is what would
// run: Podman's own program of this host, told to sleep, in a root without a
// byte of anything else. Of such a container there is nothing to keep secret.

const (
	pauseFile     = "catatonit"
	maxPauseBytes = 16 << 20
	// maxPauseEntries bounds the walk through the root, which has mount points.
	maxPauseEntries = 256
)

// pauseArgs is how Podman tells it to sleep.
var pauseArgs = []string{"/" + pauseFile, "-P"}

// SystemPausePrograms is where Podman finds the program of its infra containers.
func SystemPausePrograms() []string {
	return []string{"/usr/libexec/podman/catatonit", "/usr/local/libexec/podman/catatonit", "/usr/lib/podman/catatonit",
		"/usr/local/lib/podman/catatonit", "/usr/bin/catatonit", "/usr/local/bin/catatonit"}
}

// errNoPause is for a container that does not look like an infra container.
var errNoPause = errors.New("not an infra container")

const pauseWarning = "this is a pod's infra container: it runs as a plain container, with nothing in it but Podman's program that sleeps"

// pauses says whether s asks for nothing but to sleep.
func pauses(s *crun.Spec) bool {
	return s.Process != nil && slices.Equal(s.Process.Args, pauseArgs)
}

// checkPause is nil for the infra container of a pod, and says what speaks
// against that. own is where this host may have Podman's program.
func checkPause(s *crun.Spec, own []string) error {
	if !pauses(s) {
		return errNoPause
	}
	if h, ok := s.Annotations[crun.HandlerAnnotation]; ok {
		return fmt.Errorf("annotation %s=%s names another runtime for it", crun.HandlerAnnotation, h)
	}
	root, err := os.OpenRoot(s.RootFS)
	if err != nil {
		return fmt.Errorf("opening root file system: %w", err)
	}
	defer root.Close()
	program, err := pauseProgram(s, root)
	if err != nil {
		return err
	}
	if err := isHosts(program, own); err != nil {
		return err
	}
	return checkEmpty(root.FS())
}

// pauseProgram reads what would run: of the root, or mounted into it, as newer
// Podmans do.
func pauseProgram(s *crun.Spec, root *os.Root) ([]byte, error) {
	at := func(name string) func(specs.Mount) bool {
		return func(m specs.Mount) bool { return path.Clean("/"+m.Destination) == name }
	}
	if slices.ContainsFunc(s.Mounts, at("/")) {
		return nil, errors.New("something is mounted over its root")
	}
	i := slices.IndexFunc(s.Mounts, at("/"+pauseFile))
	switch {
	case i < 0:
		return bounded.RegularFS(root.FS(), pauseFile, maxPauseBytes)
	case slices.ContainsFunc(s.Mounts[i+1:], at("/"+pauseFile)):
		return nil, errors.New("two mounts are over its program")
	}
	return bounded.Regular(s.Mounts[i].Source, maxPauseBytes)
}

// isHosts compares program with this host's own.
func isHosts(program []byte, own []string) error {
	for _, name := range own {
		b, err := bounded.Regular(name, maxPauseBytes)
		if err == nil && len(b) > 0 && bytes.Equal(b, program) {
			return nil
		}
	}
	return fmt.Errorf("its /%s is none of this host's (%v)", pauseFile, own)
}

// checkEmpty refuses a root with anything in it but the program, directories and
// empty files, which are what mounts go over, and links.
func checkEmpty(root fs.FS) error {
	seen := 0
	return fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if seen++; err == nil && seen > maxPauseEntries {
			err = fmt.Errorf("its root has more than %d entries", maxPauseEntries)
		}
		if err != nil || d.IsDir() || name == pauseFile || d.Type() == fs.ModeSymlink {
			return err
		}
		info, err := d.Info()
		if err == nil && (!info.Mode().IsRegular() || info.Size() != 0) {
			err = fmt.Errorf("its root has /%s besides the program", name)
		}
		return err
	})
}
