package wrapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// ConfigPath is the optional configuration of the runtime, which Podman gives
// no options of its own.
const ConfigPath = "/etc/ccrun/krun.json"

// Config is ConfigPath's content.
type Config struct {
	Crun    string `json:"crun,omitempty"`    // absolute path; default: SystemCrunDirs, then PATH
	Library string `json:"library,omitempty"` // libkrunfw-sev.so.5; default: the usual directories
	// StateDir is for the composed libraries: absolute, on a file system that
	// executes; default: the first such of /run/ccrun and /var/lib/ccrun/run.
	StateDir string `json:"state_dir,omitempty"`
	// For images for QEMU: a root file system with QEMU and its libraries, default
	// the host's own; the directory that `ccrun firmware compose` made, default where
	// it makes one; the socket of the quote generation service, default qgsd's; how
	// long a guest's agent may take to start, default 5m.
	QEMURoot     string `json:"qemu_root,omitempty"`
	QEMUFirmware string `json:"qemu_firmware,omitempty"`
	Quotes       string `json:"quote_socket,omitempty"`
	BootLimit    string `json:"boot_limit,omitempty"`
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
	for _, p := range []string{c.Crun, c.Library, c.StateDir, c.QEMURoot, c.QEMUFirmware, c.Quotes} {
		if p != "" && !filepath.IsAbs(p) {
			return c, fmt.Errorf("%s: %q is not an absolute path", path, p)
		}
	}
	if _, err := c.bootLimit(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// qgsSocket is where Intel's quote generation service listens.
const qgsSocket = "/var/run/tdx-qgs/qgs.socket"

// bootLimit is 0 for the default.
func (c *Config) bootLimit() (time.Duration, error) {
	if c.BootLimit == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(c.BootLimit)
	if err != nil || d < time.Second || d > 24*time.Hour || d%time.Second != 0 {
		return 0, fmt.Errorf("boot_limit %.40q, expected whole seconds up to a day, as in 90s or 10m", c.BootLimit)
	}
	return d, nil
}
