// Package process is what must be true of an image's configuration before its
// workload can start. `ccrun build` asks it before it registers a workload, and
// the agent before it starts one, so that what one of them accepts does not
// fail at the other.
package process

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// MaxBytes bounds the process configuration: an execve takes less.
const MaxBytes = 1 << 20

// maxString is MAX_ARG_STRLEN less the final NUL: what execve takes for one
// argument or variable.
const maxString = 32*4096 - 1

// ErrNoCommand is wrapped for an image that does not say what to run.
var ErrNoCommand = errors.New("image has neither Entrypoint nor Cmd: nothing to run")

// Decode parses the process configuration and refuses what cannot start.
func Decode(raw []byte) (*krun.Process, error) {
	if len(raw) > MaxBytes {
		return nil, hint.With(fmt.Errorf("process configuration has %d bytes, at most %d allowed", len(raw), MaxBytes),
			"shorten Env, Entrypoint or Cmd of the image")
	}
	var p krun.Process
	if err := kbs.UnmarshalStrict(raw, &p); err != nil {
		return nil, fmt.Errorf("decoding process configuration: %w", err)
	}
	if err := Check(&p); err != nil {
		return nil, err
	}
	return &p, nil
}

// Check refuses what cannot start.
func Check(p *krun.Process) error {
	if _, err := ParseStopSignal(p.StopSignal); err != nil {
		return hint.With(err, "correct the image's StopSignal")
	}
	argv := Arguments(p)
	if len(argv) == 0 {
		return hint.With(ErrNoCommand, "add one to the image: workload images take no command from the host")
	}
	if argv[0] == "" {
		return hint.With(errors.New("the command's name is empty"), "correct Entrypoint or Cmd of the image")
	}
	for _, list := range []struct {
		what    string
		strings []string
	}{
		{"argument", argv}, {"variable", p.Env}, {"working directory", []string{p.WorkingDir}}, {"user", []string{p.User}}, {"volume", slices.Sorted(maps.Keys(p.Volumes))},
	} {
		for _, s := range list.strings {
			if err := checkString(s); err != nil {
				return fmt.Errorf("%s %.40q: %w", list.what, s, err)
			}
		}
	}
	if p.WorkingDir != "" && p.WorkingDir[0] != '/' {
		return hint.With(fmt.Errorf("working directory %q, expected an absolute path", p.WorkingDir), "correct the image's WorkingDir")
	}
	return nil
}

// checkString refuses what execve would.
func checkString(s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("has a NUL byte, which Linux takes for its end")
	}
	if len(s) > maxString {
		return fmt.Errorf("has %d bytes; Linux takes %d", len(s), maxString)
	}
	return nil
}

// Arguments is the workload's argument vector, as the OCI image specification
// joins it.
func Arguments(p *krun.Process) []string {
	return append(append([]string(nil), p.Entrypoint...), p.Cmd...)
}
