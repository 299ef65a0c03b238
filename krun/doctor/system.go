package doctor

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// asids says how many more confidential machines this host can run: each takes
// an ASID of its own as long as it runs, and the processor has a fixed number.
func (h *Host) asids(context.Context) (string, error) {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/misc"} {
		all := h.miscOf(filepath.Join(dir, "misc.capacity"))
		if all == 0 {
			continue
		}
		if !h.exists(filepath.Join(dir, "misc.current")) { // Linux 6.5 and older, and other owners' cgroups
			return fmt.Sprintf("%d SEV-ES/SNP ASIDs, of which each running machine takes one; this kernel does not say how many are free", all), nil
		}
		free := max(0, all-h.miscOf(filepath.Join(dir, "misc.current")))
		if free == 0 {
			return "", hint.With(warning{fmt.Errorf("all %d SEV-ES/SNP ASIDs are in use: no other confidential machine can start", all)},
				"stop one, or raise their number in the BIOS (minimum SEV non-ES ASID)")
		}
		return fmt.Sprintf("%d of %d SEV-ES/SNP ASIDs are free; each running machine takes one", free, all), nil
	}
	return "", warning{errors.New("the misc cgroup controller lists no SEV-ES/SNP ASIDs")}
}

// miscOf is the number of SEV-ES ASIDs in a file of the misc controller, 0 if
// that does not say.
func (h *Host) miscOf(file string) int {
	for line := range strings.Lines(h.read(file)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "sev_es" {
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return 0
			}
			return int(n)
		}
	}
	return 0
}

var podmanVersion = regexp.MustCompile(`podman version (\d+)\.(\d+)`)

func (h *Host) podman(ctx context.Context) (string, error) {
	out, err := h.Output(ctx, "podman", "--version")
	if err != nil {
		return "", fmt.Errorf("running podman --version: %w", err)
	}
	m := podmanVersion.FindStringSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("podman --version says %q", out)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	if major < 4 || major == 4 && minor < 8 {
		return "", warning{fmt.Errorf("podman %d.%d: `podman run` and `ccrun run` work, units of `ccrun quadlet` do not", major, minor)}
	}
	return fmt.Sprintf("podman %d.%d", major, minor), nil
}

// podmansRuntime asks Podman which program it runs for --runtime krun.
func (h *Host) podmansRuntime(ctx context.Context) (string, error) {
	out, err := h.Output(ctx, "podman", "--runtime", "krun", "info", "--format", "{{.Host.OCIRuntime.Path}}")
	if err != nil {
		return "", fmt.Errorf("asking Podman for its runtime krun: %w", err)
	}
	path := strings.TrimSpace(out)
	if !h.Ours(path) {
		return "", fmt.Errorf("runtime krun of Podman is %s, which is not this ccrun", path)
	}
	return path, nil
}

const passtAnnotation = "krun.use_passt"

// passt looks for a default that would give every container passt's network:
// that turns libkrun's own off, and the guest has no DHCP client. A container
// that asks for it is refused.
func (h *Host) passt(context.Context) (string, error) {
	for _, file := range h.containersConfs() {
		for line := range strings.Lines(h.read(file)) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") && strings.Contains(line, passtAnnotation) {
				return "", hint.With(fmt.Errorf("%s gives containers %s, with which krun refuses them", file, passtAnnotation),
					"take it out of %s", file)
			}
		}
	}
	return "off", nil
}

// containersConfs lists the files of containers.conf(5), those of the user
// included.
func (h *Host) containersConfs() []string {
	user := h.Getenv("XDG_CONFIG_HOME")
	if user == "" {
		user = filepath.Join(h.Getenv("HOME"), ".config")
	}
	var files []string
	for _, dir := range []string{"/usr/share/containers", "/etc/containers", filepath.Join(user, "containers")} {
		main := filepath.Join(dir, "containers.conf")
		files = append(files, main)
		more, _ := filepath.Glob(h.path(main + ".d/*.conf"))
		for _, path := range more {
			if below, err := filepath.Rel(h.Root, path); err == nil {
				files = append(files, "/"+below)
			}
		}
	}
	for _, name := range []string{"CONTAINERS_CONF", "CONTAINERS_CONF_OVERRIDE"} {
		if path := h.Getenv(name); path != "" {
			files = append(files, path)
		}
	}
	return files
}

func (h *Host) clock(context.Context) (string, error) {
	state, err := h.Clock()
	if err == nil && state == unix.TIME_ERROR {
		err = errors.New("the kernel's clock is not synchronised")
	}
	if err != nil {
		return "", warning{err}
	}
	return "synchronised", nil
}

func (h *Host) server(ctx context.Context) (string, error) {
	if err := h.Server(ctx); err != nil {
		return "", err
	}
	return "answers", nil
}
