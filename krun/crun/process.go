package crun

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccrun/ccrun/krun"
)

// imageCommand is the entry point of every workload image: the stub that says
// that no krun runtime is there.
const imageCommand = "/" + krun.EntrypointFile

// hasReaper says whether podman run --init put a program before the command.
func hasReaper(args []string) bool {
	return len(args) >= 2 && (args[0] == "/dev/init" || args[0] == "/run/podman-init") && args[1] == "--"
}

func reaper(m *Machine) []string {
	return one(hasReaper(m.process().Args), "the VM has an init of its own: --init has no effect")
}

func dropReaper(m *Machine) error { return m.Set(m.process().Args[2:], "process", "args") }

func arguments(m *Machine) []string {
	args := m.process().Args
	if hasReaper(args) {
		args = args[2:]
	}
	return one(m.Process != nil && !slices.Equal(args, []string{imageCommand}),
		"arguments or an entry point given at launch do not reach the workload: its command is part of its measured identity")
}

// podmanEnv is what Podman sets without being asked.
var podmanEnv = []string{"PATH", "TERM", "HOME", "HOSTNAME", "container",
	"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"}

func askedFor(variable string) bool {
	name, _, _ := strings.Cut(variable, "=")
	return !slices.Contains(podmanEnv, name)
}

// environment names what the workload will not get. Values may be secret.
func environment(m *Machine) []string {
	var given []string
	for _, e := range m.process().Env {
		if askedFor(e) {
			name, _, _ := strings.Cut(e, "=")
			given = append(given, fmt.Sprintf("environment variable %q does not reach the workload: its owner can set it with `ccrun workload config set`, if the image was built with --env-allow NAME", name))
		}
	}
	return given
}

func dropEnvironment(m *Machine) error {
	return m.Set(slices.DeleteFunc(m.process().Env, askedFor), "process", "env")
}

func user(m *Machine) []string {
	u := m.process().User
	others := slices.ContainsFunc(u.AdditionalGids, func(gid uint32) bool { return gid != u.GID })
	return one(u.UID != 0 || u.GID != 0 || others, "the user to run the workload as is measured with it: --user and --group-add have no effect")
}

func dropUser(m *Machine) error {
	return m.Set(specs.User{Umask: m.process().User.Umask}, "process", "user")
}

// podmansUmask is what Podman sets without being asked.
const podmansUmask = 0o022

func umask(m *Machine) []string {
	given := m.process().User.Umask
	return one(given != nil && *given != podmansUmask, "the umask does not reach the workload")
}

func workdir(m *Machine) []string {
	cwd := m.process().Cwd
	return one(cwd != "" && cwd != "/", "the working directory is measured with the workload: --workdir has no effect")
}

func terminal(m *Machine) []string {
	return one(m.process().Terminal, "the workload has no terminal: -t is not possible")
}

func interactive(m *Machine) []string {
	return one(m.Interactive, "no input reaches the workload: -i is not possible")
}

func dropInteractive(m *Machine) error {
	m.Interactive = false
	return nil
}
