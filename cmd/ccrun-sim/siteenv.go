package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/sim"
)

// environment writes Podman's configuration, and is what a shell sources.
func (s *site) environment(ctx context.Context) (string, error) {
	conf := s.path("containers.conf")
	if err := os.WriteFile(conf, []byte(s.podmanConfig()), 0o600); err != nil {
		return "", err
	}
	name, err := podmanConfigVariable(ctx)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, v := range [][2]string{
		{"CCRUN_SERVER", s.url()}, {"CCRUN_CA", s.path(anchorDir, "data", "ca.pem")}, {"CCRUN_TOKEN_FILE", s.path(anchorDir, "token")},
		{"CCRUN_ATTEST_URL", s.guestURL}, {"CCRUN_FIRMWARE", s.path(firmwareIn)},
		{"CCRUN_SIM_ROOT", s.path(platform)}, {"CCRUN_SIM_FIRMWARE", s.path(firmwareIn)}, {name, conf},
	} {
		fmt.Fprintf(&b, "export %s=%s\n", v[0], shellQuoted(v[1]))
	}
	if own := filepath.Dir(s.self); !slices.Contains(filepath.SplitList(os.Getenv("PATH")), own) {
		fmt.Fprintf(&b, "export PATH=%s:\"$PATH\"\n", shellQuoted(own))
	}
	return b.String(), nil
}

func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

var podmanVersion = regexp.MustCompile(`(\d+)\.(\d+)`)

// podmanConfigVariable is by which Podman is told of one more runtime: since 4.6
// by a file on top of all others, before by one in place of them.
func podmanConfigVariable(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "podman", "--version").Output()
	if err != nil {
		return "", hint.With(fmt.Errorf("asking podman for its version: %w", err), "install podman, crun and qemu-system-x86")
	}
	m := podmanVersion.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("podman --version: %q, expected a version", out)
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	if major > 4 || major == 4 && minor >= 6 {
		return "CONTAINERS_CONF_OVERRIDE", nil
	}
	return "CONTAINERS_CONF", nil
}

// podmanConfig names the runtime. Where this process may not raise its limits
// to Podman's defaults, as in many sandboxes, no container may either.
func (s *site) podmanConfig() string {
	var b strings.Builder
	if limits := lowerLimits(); len(limits) > 0 {
		fmt.Fprintf(&b, "[containers]\ndefault_ulimits = [%s]\n", strings.Join(limits, ", "))
	}
	// Podman 4.3 would take CNI wherever Debian's example of it lies about.
	if netavark := []string{"/usr/lib/podman/netavark", "/usr/libexec/podman/netavark"}; slices.ContainsFunc(netavark, exists) {
		b.WriteString("[network]\nnetwork_backend = \"netavark\"\n")
	}
	fmt.Fprintf(&b, "[engine]\nconmon_env_vars = [%q, %q, %q]\n[engine.runtimes]\n%s = [%q]\n",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"CCRUN_SIM_ROOT="+s.path(platform), "CCRUN_SIM_FIRMWARE="+s.path(firmwareIn), sim.RuntimeName, s.path(binDir, sim.RuntimeName))
	return b.String()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// lowerLimits are what the limits can be at most, where that is less than what
// Podman gives a container. Podman lowers its own limit of processes to
// pid_max, and no child of it can be above that.
func lowerLimits() (limits []string) {
	pids, _ := bounded.File("/proc/sys/kernel/pid_max", 64)
	for _, l := range []struct{ name, letter, podmans, cap string }{
		{"nofile", "n", "1048576", ""}, {"nproc", "u", "4194304", strings.TrimSpace(string(pids))},
	} {
		if exec.Command("bash", "-c", "ulimit -H"+l.letter+" "+l.podmans).Run() == nil {
			continue
		}
		out, err := exec.Command("bash", "-c", "ulimit -H"+l.letter).Output()
		if most := lower(strings.TrimSpace(string(out)), l.cap); err == nil && most != "" {
			limits = append(limits, fmt.Sprintf("%q", l.name+"="+most+":"+most))
		}
	}
	return limits
}

// lower is the lower of two numbers; what is none, such as "unlimited", is no limit.
func lower(a, b string) string {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	switch {
	case errX != nil && errY != nil:
		return ""
	case errY != nil || errX == nil && x < y:
		return a
	}
	return b
}

// removeContainers removes those that the runtime has to be there for.
func (s *site) removeContainers(c *cli.Context) error {
	podman := func(args ...string) (string, error) {
		cmd := exec.CommandContext(c.Context, "podman", args...)
		if name, err := podmanConfigVariable(c.Context); err == nil {
			cmd.Env = append(os.Environ(), name+"="+s.path("containers.conf"))
		}
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("running podman %s: %w", args[0], err)
		}
		return string(out), err
	}
	ids, err := podman("ps", "-aq", "--no-trunc")
	if err != nil {
		return err
	}
	for id := range strings.FieldsSeq(ids) {
		runtime, err := podman("inspect", "--type", "container", "--format", "{{.OCIRuntime}}", id)
		if err != nil || strings.TrimSpace(runtime) != sim.RuntimeName {
			continue // it was removed meanwhile, or is not ours
		}
		if _, err := podman("rm", "-f", id); err != nil {
			return err
		}
		program.Note(c, "removed container %s", id[:12])
	}
	return nil
}
