package wrapper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/crun"
)

// SystemCrunDirs is where crun is looked for before PATH: Podman deletes a
// container with an empty environment, and must reach the same crun that
// created it. An administrator's own build comes first.
func SystemCrunDirs() []string {
	return []string{"/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin"}
}

func (w *Wrapper) lookForCrun() (string, error) {
	if w.Crun != "" {
		return w.Crun, nil
	}
	for _, dir := range w.CrunDirs {
		if path, err := exec.LookPath(filepath.Join(dir, "crun")); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath("crun")
	if err != nil {
		return "", hint.With(fmt.Errorf("finding crun: %w", err), `install crun, or name it in /etc/ccrun/krun.json: {"crun":"/path/to/crun"}`)
	}
	return path, nil
}

// FindCrun returns the path of crun, which must not be this program: with
// both installed as crun, each call would start another.
func (w *Wrapper) FindCrun() (string, error) {
	path, err := w.lookForCrun()
	if err != nil {
		return "", err
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("finding crun: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("finding crun: %w", err)
	}
	if os.SameFile(self, info) {
		return "", fmt.Errorf("%s is ccrun itself, expected the real crun", path)
	}
	return path, nil
}

// CheckCrun returns the version of the crun at path, or refuses it if it cannot
// run a workload image as it is meant.
func (w *Wrapper) CheckCrun(path string) (version string, err error) {
	printed, err := w.Version(path)
	if err != nil {
		return "", fmt.Errorf("asking %s for its version: %w", path, err)
	}
	return crun.CheckVersion(path, printed)
}

// RunVersion is the Version of a real host: the output of `crun --version`.
func RunVersion(crun string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, crun, "--version")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return "", err
	}
	b, err := bounded.Read(out, "its output", 64<<10)
	return string(b), errors.Join(err, cmd.Wait())
}
