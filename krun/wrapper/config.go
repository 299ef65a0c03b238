package wrapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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
	for _, p := range []string{c.Crun, c.Library, c.StateDir} {
		if p != "" && !filepath.IsAbs(p) {
			return c, fmt.Errorf("%s: %q is not an absolute path", path, p)
		}
	}
	return c, nil
}
