package doctor

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun/wrapper"
)

// Host is what the checks look at; tests give their own.
type Host struct {
	Root   string // prefix of paths of the system, normally "/"
	Getenv func(string) string
	Output func(ctx context.Context, name string, arg ...string) (string, error)
	// Runtime is the runtime krun of this host: what it would start is what is
	// judged.
	Runtime func() (*wrapper.Wrapper, error)
	// Ours says whether the program at path is ccrun's runtime.
	Ours func(path string) bool
	// Clock returns adjtimex(2)'s clock state.
	Clock func() (int, error)
	// Server probes the attestation server; nil when none was named.
	Server func(context.Context) error

	runtime *wrapper.Wrapper // once Runtime returned it
	noQEMU  bool             // its check found none
}

// Local is this machine.
func Local() *Host {
	return &Host{
		Root: "/", Getenv: os.Getenv, Output: output, Ours: isSelf,
		Runtime: func() (*wrapper.Wrapper, error) { return wrapper.Host(wrapper.ConfigPath) },
		Clock:   func() (int, error) { return unix.Adjtimex(&unix.Timex{}) },
	}
}

// output is what a program prints. If it fails, its last words are the error.
func output(ctx context.Context, name string, arg ...string) (string, error) {
	b, err := exec.CommandContext(ctx, name, arg...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		said := strings.Split(strings.TrimSpace(string(failed.Stderr)), "\n")
		if last := said[len(said)-1]; last != "" {
			err = errors.New(last)
		}
	}
	return string(b), err
}

// isSelf compares a program with this one, which is the runtime by name.
func isSelf(path string) bool {
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	info, err := os.Stat(path)
	return err == nil && os.SameFile(self, info) && filepath.Base(path) == "krun"
}

func (h *Host) path(p string) string { return filepath.Join(h.Root, p) }

const maxFileBytes = 1 << 20 // of the system's files that are looked at

func (h *Host) read(p string) string {
	b, err := bounded.File(h.path(p), maxFileBytes)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// warning is an error that leaves the host fit.
type warning struct{ error }

func (w warning) Unwrap() error { return w.error }
