package wrapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun/crun"
	"github.com/ccrun/ccrun/krun/firmware"
)

// ConfigPath is the optional configuration of the runtime, which Podman gives
// no options of its own.
const ConfigPath = "/etc/ccrun/krun.json"

// Config is ConfigPath's content.
type Config struct {
	Crun    string `json:"crun,omitempty"`    // absolute path; default: SystemCrunDirs, then PATH
	Library string `json:"library,omitempty"` // libkrunfw-sev.so.5; default: the usual directories
}

// Host returns the runtime of this host, configured by the file at configPath
// if there is one.
func Host(configPath string) (*Wrapper, error) {
	c, err := readConfig(configPath)
	if err != nil {
		return nil, err
	}
	state, err := stateDir(os.Geteuid(), os.Getenv("XDG_RUNTIME_DIR"), "/proc/self/uid_map")
	if err != nil {
		return nil, err
	}
	return &Wrapper{
		Crun: c.Crun, CrunDirs: SystemCrunDirs(), Library: c.Library, Search: firmware.SystemSearch(), StateDir: state,
		KVM: "/dev/kvm", SEV: "/dev/sev",
		Exec: syscall.Exec, Version: RunVersion, Environ: os.Environ(), Stderr: os.Stderr, Now: time.Now,
	}, nil
}

func readConfig(path string) (Config, error) {
	var c Config
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 {
		return c, fmt.Errorf("%s has mode %v, expected a file that only its owner may write", path, info.Mode())
	}
	if err := kbs.DecodeStrict(f, maxConfigBytes, &c); err != nil {
		return c, fmt.Errorf("decoding %s: %w", path, err)
	}
	for _, p := range []string{c.Crun, c.Library} {
		if p != "" && !filepath.IsAbs(p) {
			return c, fmt.Errorf("%s: %q is not an absolute path", path, p)
		}
	}
	return c, nil
}

// stateDir is /run/ccrun for root of the host, and under XDG_RUNTIME_DIR for
// a rootless Podman, whose runtime is root of a user namespace only.
func stateDir(euid int, runtimeDir, uidMap string) (string, error) {
	m, err := os.ReadFile(uidMap)
	if err != nil {
		return "", fmt.Errorf("reading user namespace: %w", err)
	}
	if f := strings.Fields(string(m)); euid == 0 && len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295" {
		return "/run/ccrun", nil
	}
	if !filepath.IsAbs(runtimeDir) {
		return "", errors.New("XDG_RUNTIME_DIR is not set, which a rootless runtime needs")
	}
	return filepath.Join(runtimeDir, "ccrun"), nil
}

// ReportError writes err as Run does, for errors before there is a Wrapper.
func ReportError(argv []string, err error) {
	c, _ := crun.Parse(argv)
	report(c, err, os.Stderr, time.Now())
}
