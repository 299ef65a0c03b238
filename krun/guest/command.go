package guest

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// environment is the workload's: the image's, with what Podman adds where the
// image has none. The last of two settings of one name wins.
func environment(p *krun.Process, home, hostname string) []string {
	var env []string
	at := map[string]int{}
	set := func(name, value string, replace bool) {
		i, ok := at[name]
		switch {
		case !ok:
			at[name] = len(env)
			env = append(env, name+"="+value)
		case replace:
			env[i] = name + "=" + value
		}
	}
	for _, kv := range p.Env {
		if name, value, ok := strings.Cut(kv, "="); ok && name != "" {
			set(name, value, true)
		}
	}
	set("PATH", defaultPath, false)
	set("TERM", "xterm", false)
	set("container", "podman", false)
	set("HOSTNAME", hostname, false)
	set("HOME", home, false)
	return env
}

func getenv(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

// lookUp finds the executable of name as execvp would: through path, with the
// permissions that the calling thread has by then. Errors carry the exit
// status 126 or 127.
func lookUp(name, path, dir string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	if name == "" {
		return "", &statusError{statusNotFound, classed(classConfiguration, errors.New("the command's name is empty"))}
	}
	denied := error(nil)
	for _, p := range filepath.SplitList(path) {
		if !filepath.IsAbs(p) {
			p = filepath.Join(dir, p)
		}
		full := filepath.Join(p, name)
		err := executable(full)
		if err == nil {
			return full, nil
		}
		var s *statusError
		if errors.As(err, &s) && s.status == statusNotExecutable {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &statusError{statusNotFound, classed(classNotFound, fmt.Errorf("executable %q not found in PATH %q", name, path))}
}

func executable(path string) error {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
		return &statusError{statusNotFound, classed(classNotFound, fmt.Errorf("executable %s not found", path))}
	case err != nil:
		return &statusError{statusNotExecutable, classed(classNotExecutable, fmt.Errorf("executable %s: %w", path, err))}
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return &statusError{statusNotExecutable, classed(classNotExecutable, fmt.Errorf("%s is not a regular file", path))}
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
		return &statusError{statusNotExecutable, classed(classNotExecutable, fmt.Errorf("executing %s: %w", path, err))}
	}
	return nil
}
