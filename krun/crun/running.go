package crun

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// maxStatusBytes bounds what crun writes about a container.
const maxStatusBytes = 1 << 20

// Running opens the specification of the container that c names, as Podman
// wrote it. crun's state says where that is (src/libcrun/status.c).
func (c Command) Running() (*Spec, error) {
	if c.ID == "" || filepath.Base(c.ID) != c.ID {
		return nil, fmt.Errorf("container id %q is not valid", c.ID)
	}
	path := filepath.Join(c.stateRoot(), c.ID, "status")
	b, err := bounded.Regular(path, maxStatusBytes)
	if err != nil {
		return nil, fmt.Errorf("reading crun's state: %w", err)
	}
	var status struct {
		Bundle string `json:"bundle"`
	}
	if err := json.Unmarshal(b, &status); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", path, err)
	}
	if !filepath.IsAbs(status.Bundle) {
		return nil, fmt.Errorf("%s: bundle %q is not an absolute path", path, status.Bundle)
	}
	return Command{ID: c.ID, Bundle: status.Bundle}.Open()
}

// stateRoot is where crun keeps its state, as it finds it.
func (c Command) stateRoot() string {
	switch dir := os.Getenv("XDG_RUNTIME_DIR"); {
	case c.Root != "":
		return c.Root
	case os.Geteuid() != 0 && dir != "":
		return filepath.Join(dir, "crun")
	}
	return "/run/crun"
}

// RefuseExec is the answer to `podman exec` for a workload's container.
func RefuseExec() error {
	return hint.With(errors.New("the container is a confidential VM, into which the host cannot execute anything"),
		"build what you need into the image; health checks belong into the workload")
}
