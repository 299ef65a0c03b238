package process

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// What cannot start is refused before it is registered. Each of these passed
// a build once and ended at boot.
func TestDecodeRefuses(t *testing.T) {
	good := func() krun.Process {
		return krun.Process{Entrypoint: []string{"/bin/a"}, Cmd: []string{""}, Env: []string{"A=1"}, WorkingDir: "/w", User: "1:2", StopSignal: "SIGINT"}
	}
	if _, err := decode(t, good()); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 128<<10)
	for name, c := range map[string]struct {
		change func(*krun.Process)
		want   string
	}{
		"stop signal":            {func(p *krun.Process) { p.StopSignal = "SIGFOO" }, "SIGFOO"},
		"no command":             {func(p *krun.Process) { p.Entrypoint, p.Cmd = nil, nil }, "neither"},
		"empty command":          {func(p *krun.Process) { p.Entrypoint[0] = "" }, "name is empty"},
		"NUL in an argument":     {func(p *krun.Process) { p.Cmd[0] = "a\x00b" }, "NUL"},
		"NUL in a variable":      {func(p *krun.Process) { p.Env[0] = "A=\x00" }, "NUL"},
		"NUL in the directory":   {func(p *krun.Process) { p.WorkingDir = "/\x00" }, "NUL"},
		"NUL in the user":        {func(p *krun.Process) { p.User = "a\x00" }, "NUL"},
		"NUL in a volume":        {func(p *krun.Process) { p.Volumes = map[string]struct{}{"/\x00": {}} }, "NUL"},
		"long argument":          {func(p *krun.Process) { p.Cmd[0] = long }, "131071"},
		"long variable":          {func(p *krun.Process) { p.Env[0] = "A=" + long }, "131071"},
		"relative directory":     {func(p *krun.Process) { p.WorkingDir = "app" }, "absolute"},
		"more than Linux starts": {func(p *krun.Process) { p.Env = make([]string, 600<<10) }, "1048576"},
	} {
		p := good()
		c.change(&p)
		if _, err := decode(t, p); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := good()
	p.Cmd[0] = long[1:]
	if _, err := decode(t, p); err != nil {
		t.Errorf("the longest argument that Linux takes: %v", err)
	}
	p.Entrypoint, p.Cmd = nil, nil
	if _, err := decode(t, p); !errors.Is(err, ErrNoCommand) || hint.Of(err) == "" {
		t.Errorf("no command: %v", err)
	}
}

func decode(t *testing.T, p krun.Process) (*krun.Process, error) {
	t.Helper()
	raw, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return Decode(raw)
}
