package firmware

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Search says where to look for an installed libkrunfw.
type Search struct {
	Dirs []string
}

// SystemSearch looks where `make install` of libkrunfw and distributions put
// libraries; an administrator's own first, as the dynamic loader does.
func SystemSearch() Search {
	return Search{Dirs: []string{
		"/usr/local/lib64", "/usr/local/lib", "/usr/local/lib/x86_64-linux-gnu",
		"/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib", "/lib64", "/lib",
	}}
}

// notInstalled says what to install.
type notInstalled struct {
	name string
	dirs []string
}

func (e *notInstalled) Error() string {
	return fmt.Sprintf("%s is not installed in %v", e.name, e.dirs)
}
func (e *notInstalled) Unwrap() error { return fs.ErrNotExist }
func (e *notInstalled) Hint() string {
	return "build libkrunfw with `make SEV=1` (or TDX=1) and install it, or name the file with --firmware"
}

// Find returns the path of the installed library for tee.
func (s Search) Find(tee kbs.TEE) (string, error) {
	name := LibraryName
	switch tee {
	case kbs.SNP:
	case kbs.TDX:
		name = "libkrunfw-tdx.so.5"
	default:
		return "", fmt.Errorf("no installed library is firmware for TEE %q", tee)
	}
	for _, dir := range s.Dirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("looking for %s: %w", name, err)
		}
	}
	return "", &notInstalled{name: name, dirs: s.Dirs}
}

// FindInstalled is SystemSearch().Find(kbs.SNP).
func FindInstalled() (string, error) { return SystemSearch().Find(kbs.SNP) }

// ComposedDirs is where the firmware of QEMU's machines for tee is looked for, an
// administrator's own first. The last is where it is written.
func ComposedDirs(tee kbs.TEE) []string {
	name := "qemu-" + string(tee)
	return []string{"/usr/local/share/ccrun/" + name, "/usr/share/ccrun/" + name, "/var/lib/ccrun/" + name}
}

// FindComposed returns the path of the firmware of QEMU's machines for tee.
func FindComposed(tee kbs.TEE) (string, error) {
	dirs := ComposedDirs(tee)
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, ConfigFile)); err == nil {
			return dir, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("looking for firmware: %w", err)
		}
	}
	return "", fmt.Errorf("no firmware of QEMU's machines for TEE %s in %v", tee, dirs)
}
