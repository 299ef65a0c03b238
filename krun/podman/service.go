// Package podman launches workload images through Podman's API and writes the
// units that launch them at boot. It is the one place that imports Podman's
// bindings.
package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containers/common/pkg/config"
	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/bindings/system"

	"github.com/ccrun/ccrun/hint"
	_ "github.com/ccrun/ccrun/hint/set_GOFLAGS_as_in_AGENTS.md"
)

const (
	serviceStart = 20 * time.Second
	serviceStop  = 10 * time.Second
)

// Service is a Podman API service whose containers get the wanted runtime.
type Service struct {
	// Connect opens a connection of its own: Podman's Attach changes the
	// transport of the connection it is given, so nothing may share it.
	Connect func(ctx context.Context) (context.Context, error)
	// Runtime is what the service reports about its OCI runtime.
	RuntimeName, RuntimePath string

	close func() error
}

// Close ends a private service. Containers it started go on.
func (s *Service) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// Options says which Podman to use and for which runtime.
type Options struct {
	URL     string // --url; empty: as Podman finds it
	Runtime string // "krun", "krun-sim" or an absolute path; empty: any, for a service that creates nothing
	Podman  string // Podman's binary for a private service; empty: from PATH
}

// Open finds a Podman API service that creates containers with o.Runtime.
// Podman ignores a runtime named in a container's specification, so a shared
// service serves only when the runtime is its default; otherwise a private
// service is started for the call, with --runtime.
func Open(ctx context.Context, o Options) (*Service, error) {
	if url, from := explicitURL(o.URL); url != "" {
		s, err := connect(ctx, url)
		if err != nil {
			return nil, hint.With(fmt.Errorf("connecting to Podman's API at %s (%s): %w", url, from, err),
				"start it with `systemctl start podman.socket`, or unset %s to let ccrun start a private one", from)
		}
		if o.Runtime != "" && !s.uses(o.Runtime) {
			return nil, hint.With(fmt.Errorf("the Podman service at %s (%s) runs containers with %q, not %q", url, from, s.RuntimeName, o.Runtime),
				"Podman's API ignores a runtime named by the client: unset %s, or set `[engine] runtime = %q` in the service's containers.conf", from, o.Runtime)
		}
		return s, nil
	}
	for _, socket := range defaultSockets() {
		if s, err := connect(ctx, "unix://"+socket); err == nil && (o.Runtime == "" || s.uses(o.Runtime)) {
			return s, nil
		}
	}
	return private(ctx, o)
}

// explicitURL is the service the user named, and how.
func explicitURL(flag string) (url, from string) {
	if flag != "" {
		return flag, "--url"
	}
	if v := os.Getenv("CONTAINER_HOST"); v != "" {
		return v, "CONTAINER_HOST"
	}
	conf, err := config.Default()
	if err != nil {
		return "", ""
	}
	if name := os.Getenv("CONTAINER_CONNECTION"); name != "" {
		if c, err := conf.GetConnection(name, false); err == nil {
			return c.URI, "CONTAINER_CONNECTION"
		}
	}
	if c, err := conf.GetConnection("", true); err == nil && conf.Engine.Remote {
		return c.URI, "the default connection of containers.conf"
	}
	return "", ""
}

func defaultSockets() []string {
	if os.Geteuid() == 0 {
		return []string{"/run/podman/podman.sock"}
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return []string{filepath.Join(d, "podman/podman.sock")}
	}
	return nil
}

func connect(ctx context.Context, url string) (*Service, error) {
	s := &Service{Connect: func(ctx context.Context) (context.Context, error) {
		return bindings.NewConnection(ctx, url)
	}}
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	info, err := system.Info(conn, nil)
	if err != nil {
		return nil, fmt.Errorf("asking Podman for its runtime: %w", err)
	}
	if info.Host == nil || info.Host.OCIRuntime == nil {
		return nil, errors.New("podman does not say which runtime it uses")
	}
	s.RuntimeName, s.RuntimePath = info.Host.OCIRuntime.Name, info.Host.OCIRuntime.Path
	return s, nil
}

func (s *Service) uses(runtime string) bool {
	return runtime != "" && (s.RuntimeName == runtime || s.RuntimePath == runtime)
}

// private starts `podman --runtime R system service` on a socket only we can
// reach. It dies with us; its containers do not.
func private(ctx context.Context, o Options) (*Service, error) {
	podman := o.Podman
	if podman == "" {
		podman = "podman"
	}
	bin, err := exec.LookPath(podman)
	if err != nil {
		return nil, hint.With(fmt.Errorf("no Podman API socket answers and there is no %s to start one: %w", podman, err),
			"install Podman (`apt-get install podman`), or name a service with --url or CONTAINER_HOST")
	}
	dir, err := os.MkdirTemp("", "ccrun-podman-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for the Podman socket: %w", err)
	}
	socket := filepath.Join(dir, "podman.sock")
	var stderr bytes.Buffer
	args := []string{"system", "service", "--time", "0", "unix://" + socket}
	if o.Runtime != "" {
		args = append([]string{"--runtime", o.Runtime}, args...)
	}
	cmd := exec.Command(bin, args...)
	cmd.Stderr = &stderr
	cmd.Env = withoutNotify(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("starting %s: %w", bin, err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	stop := func() error { return stopService(cmd, exited, dir) }
	s, err := awaitService(ctx, socket, exited, &stderr)
	if err == nil && o.Runtime != "" && !s.uses(o.Runtime) {
		err = fmt.Errorf("podman started with --runtime %s reports runtime %q at %q", o.Runtime, s.RuntimeName, s.RuntimePath)
	}
	if err != nil {
		_ = stop()
		return nil, hint.With(fmt.Errorf("starting a private Podman service with runtime %s: %w", o.Runtime, err), "%s", runtimeHint(o.Runtime))
	}
	s.close = stop
	return s, nil
}

// withoutNotify keeps Podman from telling systemd that it is ready: whoever
// calls us waits for the workload.
func withoutNotify(env []string) []string {
	return slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "NOTIFY_SOCKET=") })
}

func runtimeHint(runtime string) string {
	return fmt.Sprintf("check `podman --runtime %s info`; a runtime is made known in containers.conf: [engine.runtimes] %s = [\"/path/to/%s\"]",
		runtime, filepath.Base(runtime), filepath.Base(runtime))
}

func awaitService(ctx context.Context, socket string, exited chan error, stderr *bytes.Buffer) (*Service, error) {
	ctx, cancel := context.WithTimeout(ctx, serviceStart)
	defer cancel()
	for {
		if _, err := os.Stat(socket); err == nil {
			if s, err := connect(ctx, "unix://"+socket); err == nil {
				return s, nil
			} else if ctx.Err() != nil {
				return nil, err
			}
		}
		select {
		case err := <-exited:
			exited <- err
			return nil, fmt.Errorf("podman ended (%w): %s", orEOF(err), lastLine(stderr.String()))
		case <-ctx.Done():
			return nil, fmt.Errorf("no answer on %s: %w", socket, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func orEOF(err error) error {
	if err == nil {
		return errors.New("status 0")
	}
	return err
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

func stopService(cmd *exec.Cmd, exited chan error, dir string) error {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-exited:
	case <-time.After(serviceStop):
		_ = cmd.Process.Kill()
		<-exited
	}
	return os.RemoveAll(dir)
}
