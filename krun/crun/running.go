package crun

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// maxStatusBytes bounds what crun writes about a container.
const maxStatusBytes = 1 << 20

// status is what crun keeps of a container (src/libcrun/status.c).
type status struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"process-start-time"` // proc(5), stat, field 22
	Bundle    string `json:"bundle"`
}

func (c Command) status() (*status, error) {
	if c.ID == "" || filepath.Base(c.ID) != c.ID {
		return nil, fmt.Errorf("container id %q is not valid", c.ID)
	}
	path := filepath.Join(c.StateRoot(), c.ID, "status")
	b, err := bounded.Regular(path, maxStatusBytes)
	if err != nil {
		return nil, fmt.Errorf("reading crun's state: %w", err)
	}
	var s status
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("decoding %s: %w", path, err)
	}
	return &s, nil
}

// Running opens the specification of the container that c names, as Podman
// wrote it. crun's state says where that is.
func (c Command) Running() (*Spec, error) {
	s, err := c.status()
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(s.Bundle) {
		return nil, fmt.Errorf("crun's state of %s: bundle %q is not an absolute path", c.ID, s.Bundle)
	}
	return Command{ID: c.ID, Bundle: s.Bundle}.Open()
}

// Stderr opens what the container that c names has for standard error, while
// its first process waits to be started: what is written there is in the log,
// and shown to whoever is attached.
func (c Command) Stderr() (*os.File, error) {
	s, err := c.status()
	if err != nil {
		return nil, err
	}
	if !IsProcess(s.PID, s.StartTime) {
		return nil, fmt.Errorf("process %d of container %s is gone", s.PID, c.ID)
	}
	return os.OpenFile(fmt.Sprintf("/proc/%d/fd/2", s.PID), os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
}

// Lives says whether the first process of the container that c names is there.
func (c Command) Lives() bool {
	s, err := c.status()
	return err == nil && IsProcess(s.PID, s.StartTime)
}

// IsProcess says whether the process that started then is there.
func IsProcess(pid int, started uint64) bool {
	at, err := StartTime(pid)
	return err == nil && pid > 0 && at == started
}

// StartTime tells a process from another that got its number.
func StartTime(pid int) (uint64, error) {
	const field = 22 - 2 // behind number and name, which may hold anything
	b, err := bounded.File(fmt.Sprintf("/proc/%d/stat", pid), 4<<10)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < field {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields behind the name, expected %d or more", pid, len(fields), field)
	}
	return strconv.ParseUint(fields[field-1], 10, 64)
}

// StateRoot is where crun keeps its state, as it finds it.
func (c Command) StateRoot() string {
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
