package sim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/machine"
)

// Bounds of what is read of an image, in bytes.
const (
	maxTEEConfigBytes = 64 << 10
	maxInitrdBytes    = 64 << 20
)

// isWorkload says whether dir is the root of a workload image: all three
// files there, each a regular one. Symbolic links do not count, so that a
// root cannot point the host's VMM elsewhere.
func isWorkload(dir string) (bool, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false, fmt.Errorf("looking at the image: %w", err)
	}
	defer root.Close()
	for _, name := range []string{krun.DiskFile, krun.TEEConfigFile, krun.InitrdFile} {
		info, err := root.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("looking at the image: %w", err)
		case !info.Mode().IsRegular():
			return false, nil
		}
	}
	return true, nil
}

// readTEEConfig reads the shape of the machine from the image.
func readTEEConfig(root *os.Root) (*krun.TEEConfig, error) {
	b, err := machine.ReadRegular(root, krun.TEEConfigFile, maxTEEConfigBytes)
	if err != nil {
		return nil, err
	}
	var c krun.TEEConfig
	if err := kbs.UnmarshalStrict(b, &c); err != nil {
		return nil, fmt.Errorf("reading %s: %w", krun.TEEConfigFile, err)
	}
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("%s: %w", krun.TEEConfigFile, err)
	}
	if c.TEE != kbs.Sample {
		return nil, fmt.Errorf("%s: image is for TEE %q, only %q can be simulated; build it with --tee sample",
			krun.TEEConfigFile, c.TEE, kbs.Sample)
	}
	return &c, nil
}
