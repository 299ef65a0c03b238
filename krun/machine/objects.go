package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// qemuBinary and the Debian package that has it.
const (
	qemuBinary  = "qemu-system-x86_64"
	qemuPackage = "qemu-system-x86"
)

// FindQEMUIn looks QEMU up in a root file system, by default the host's own, and
// returns where it really is in there.
func FindQEMUIn(root string) (string, error) {
	if root == "" || root == "/" {
		return FindQEMU()
	}
	for _, dir := range []string{"/usr/local/bin", "/usr/bin"} {
		path := filepath.Join(dir, qemuBinary)
		if info, err := os.Lstat(filepath.Join(root, path)); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", hint.With(fmt.Errorf("finding QEMU: %s is not installed below %s", qemuBinary, root), "apt-get install %s there", qemuPackage)
}

// FindQEMU looks QEMU up and returns where it really is.
func FindQEMU() (string, error) {
	path, err := exec.LookPath(qemuBinary)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", hint.With(fmt.Errorf("finding QEMU: %s is not installed on this host", qemuBinary), "apt-get install %s", qemuPackage)
	}
	return path, nil
}

// objectOf is the kind of QEMU's object that makes a machine confidential.
func objectOf(tee kbs.TEE) string {
	switch tee {
	case kbs.SNP:
		return "sev-snp-guest"
	case kbs.TDX:
		return "tdx-guest"
	}
	return ""
}

// releaseOf is the first QEMU with that object, for the hint: what a QEMU can do
// is asked of it, as distributions build without, or put in earlier.
func releaseOf(tee kbs.TEE) string {
	if tee == kbs.TDX {
		return "10.1"
	}
	return "9.1"
}

const (
	// objectsTime bounds how long QEMU may take to list what it has.
	objectsTime     = 5 * time.Minute
	maxObjectsBytes = 256 << 10
)

// ErrNoObject reports a QEMU that cannot make machines of a TEE.
var ErrNoObject = errors.New("QEMU lacks the TEE's object")

// CheckObject wants the QEMU at path, below root, to have the object of tee's
// machines.
func CheckObject(ctx context.Context, root, path string, tee kbs.TEE) error {
	want := objectOf(tee)
	if want == "" {
		return fmt.Errorf("TEE %q has no machines of QEMU's, expected snp or tdx", tee)
	}
	list, err := listObjects(ctx, root, path)
	if err != nil {
		return fmt.Errorf("asking %s for its objects: %w", path, err)
	}
	if slices.Contains(list, want) {
		return nil
	}
	return hint.With(fmt.Errorf("%w: %s has no object %s, without which it makes no machines for TEE %s", ErrNoObject, path, want, tee),
		"install QEMU %s or later, built with it (Debian: %s), or name another in /etc/ccrun/krun.json: {\"qemu_root\":\"/path\"}, a root file system with it",
		releaseOf(tee), debianOf(tee))
}

// debianOf is the first release of Debian whose QEMU has the object.
func debianOf(tee kbs.TEE) string {
	if tee == kbs.TDX {
		return "forky"
	}
	return "13, trixie"
}

// listObjects is what `-object help` prints: a title, then a name a line.
func listObjects(ctx context.Context, root, path string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, objectsTime)
	defer cancel()
	c := exec.CommandContext(ctx, path, "-object", "help")
	c.Env, c.Dir = []string{"PATH=/usr/bin:/bin"}, "/"
	if root != "" && root != "/" {
		c.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	}
	c.WaitDelay = time.Second
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return nil, err
	}
	b, err := bounded.Read(out, "its output", maxObjectsBytes)
	if err != nil {
		return nil, errors.Join(err, c.Process.Kill(), c.Wait())
	}
	if err := c.Wait(); err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		list = append(list, strings.TrimSpace(line))
	}
	return list, nil
}
