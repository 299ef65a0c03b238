package workload

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/rootfs"
)

// processOf is what the guest agent runs: the image's own configuration.
func processOf(c imgspec.ImageConfig) (krun.Process, error) {
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return krun.Process{}, hint.With(errors.New("image has neither Entrypoint nor Cmd: nothing to run"),
			"add one to the image: workload images take no command from the host")
	}
	for _, e := range c.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return krun.Process{}, fmt.Errorf("image environment entry %.40q, expected NAME=VALUE", e)
		}
	}
	if c.WorkingDir != "" && !strings.HasPrefix(c.WorkingDir, "/") {
		return krun.Process{}, fmt.Errorf("image working directory %q is not absolute", c.WorkingDir)
	}
	return krun.Process{
		Entrypoint: orEmpty(c.Entrypoint), Cmd: orEmpty(c.Cmd), Env: orEmpty(c.Env),
		WorkingDir: c.WorkingDir, User: c.User, StopSignal: c.StopSignal,
	}, nil
}

// orEmpty makes nil an empty list: the agent's decoder, like libkrun's C one,
// expects a list.
func orEmpty(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// ports is the annotation that lists the ports an image exposes, sorted, as
// in "53/udp,8080/tcp".
func ports(exposed map[string]struct{}) (string, error) {
	list := make([]string, 0, len(exposed))
	for p := range exposed {
		number, proto, ok := strings.Cut(p, "/")
		if !ok {
			proto = "tcp"
		}
		if n, err := strconv.ParseUint(number, 10, 16); err != nil || n == 0 || (proto != "tcp" && proto != "udp" && proto != "sctp") {
			return "", fmt.Errorf("image exposes port %q, expected NUMBER/tcp, udp or sctp", p)
		}
		list = append(list, number+"/"+proto)
	}
	sort.Strings(list)
	return strings.Join(list, ","), nil
}

// addProcess puts the image configuration where the agent looks for it, and
// makes the directories that it mounts on or writes to. What an image has in
// place of the latter, perhaps a link, stays.
func addProcess(tree *rootfs.Tree, process []byte) error {
	if err := tree.AddFile(krun.ProcessPath, 0o400, 0, 0, process); err != nil {
		return err
	}
	for _, d := range []struct {
		path  string
		mode  uint32
		mount bool
	}{
		{"/proc", 0o555, true}, {"/sys", 0o555, true}, {"/dev", 0o755, true},
		{"/run", 0o755, false}, {"/tmp", 0o1777, false}, {"/etc", 0o755, false},
	} {
		if !d.mount && tree.Lookup(d.path) != nil {
			continue
		}
		if err := tree.EnsureDir(d.path, d.mode); err != nil {
			return err
		}
	}
	return nil
}
