package podman

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/bindings/images"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// ErrNotWorkload reports an image that ccrun did not build: a krun runtime
// would run it as an ordinary container or VM, without any protection.
var ErrNotWorkload = errors.New("not a confidential workload image")

// Create pulls the image if need be, checks that image and runtime together
// really make a confidential VM, and creates the container.
func (s *Service) Create(ctx context.Context, c Container) (id string, err error) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return "", err
	}
	if err := checkRuntime(ctx, s.RuntimeName, s.RuntimePath); err != nil {
		return "", err
	}
	if err := pull(conn, c.Image, c.Pull); err != nil {
		return "", err
	}
	img, err := images.GetImage(conn, c.Image, nil)
	if err != nil {
		return "", fmt.Errorf("inspecting image %s: %w", c.Image, err)
	}
	if img.Labels[krun.LabelVersion] == "" {
		return "", hint.With(fmt.Errorf("image %s: %w (no label %s)", c.Image, ErrNotWorkload, krun.LabelVersion),
			"build one with `ccrun build %s DEST`", c.Image)
	}
	spec := c.spec(s.RuntimeName)
	if c.Resume {
		recipe, err := c.recipe(img.ID, s.RuntimePath)
		if err != nil {
			return "", err
		}
		if id, err := s.resumable(conn, &c, recipe); id != "" || err != nil {
			return id, err
		}
		spec.Labels = maps.Clone(spec.Labels)
		if spec.Labels == nil {
			spec.Labels = map[string]string{}
		}
		spec.Labels[resumeLabel] = recipe
	}
	resp, err := containers.CreateWithSpec(conn, spec, nil)
	if err != nil {
		return "", fmt.Errorf("creating container from %s: %w", c.Image, err)
	}
	return resp.ID, s.checkCreated(conn, resp.ID)
}

// checkCreated asks the service which runtime the container really got.
func (s *Service) checkCreated(conn context.Context, id string) error {
	data, err := containers.Inspect(conn, id, nil)
	if err != nil {
		return fmt.Errorf("inspecting the new container: %w", err)
	}
	if data.OCIRuntime == s.RuntimeName || data.OCIRuntime == s.RuntimePath {
		return nil
	}
	force := true
	_, _ = containers.Remove(conn, id, &containers.RemoveOptions{Force: &force})
	return fmt.Errorf("podman gave the container runtime %q instead of %q: refusing to start it", data.OCIRuntime, s.RuntimeName)
}

func pull(conn context.Context, image, policy string) error {
	exists, err := images.Exists(conn, image, nil)
	if err != nil {
		return fmt.Errorf("looking for image %s: %w", image, err)
	}
	if policy == "never" && !exists {
		return hint.With(fmt.Errorf("image %s is not in local storage and --pull is never", image), "pull it with `podman pull %s`", image)
	}
	if policy == "never" || (exists && policy == "missing") {
		return nil
	}
	quiet := true
	if _, err := images.Pull(conn, image, &images.PullOptions{Policy: &policy, Quiet: &quiet}); err != nil {
		return hint.With(fmt.Errorf("pulling %s: %w", image, err), "check the name and `podman login`")
	}
	return nil
}

// checkRuntime refuses a runtime that would run the image as a plain
// container with status 0, as a crun built without libkrun does, whatever
// its name.
func checkRuntime(ctx context.Context, name, path string) error {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return hint.With(fmt.Errorf("asking runtime %s (%s) for its version: %w", name, path, err), "%s", runtimeHint(name))
	}
	v := string(out)
	if filepath.Base(path) == "krun-sim" && strings.HasPrefix(v, "krun-sim: ") {
		return nil
	}
	if strings.Contains(v, "+LIBKRUN") {
		return nil
	}
	return hint.With(fmt.Errorf("runtime %s (%s) has no libkrun: it would run the image as a plain container, unprotected", name, path),
		"install a crun built with --with-libkrun; `ccrun doctor` tells more")
}

// Streams is where a foreground workload's output goes.
type Streams struct{ Out, Err io.Writer }

// Start starts the container and returns at once.
func (s *Service) Start(ctx context.Context, id string) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	return containers.Start(conn, id, nil)
}

// Attached is what a foreground workload is connected to.
type Attached struct {
	Streams
	Signals <-chan syscall.Signal // passed on
	// Stop, if not zero, is how long the workload has after a signal to stop.
	Stop time.Duration
	// Says, if set, is told what the guest's agent says until the workload runs,
	// and Runs that it does.
	Says func(string)
	Runs func()
}

// RunAttached starts the container, copies its output, passes on signals and
// returns the workload's exit status.
func (s *Service) RunAttached(ctx context.Context, id string, a Attached) (int, error) {
	said := &statusWatch{to: a.Err, says: a.Says, runs: a.Runs}
	attached, attachErr, err := s.attach(ctx, id, Streams{a.Out, said})
	if err != nil {
		return 0, err
	}
	select {
	case <-attached:
	case err := <-attachErr:
		return 0, fmt.Errorf("attaching to the container: %w", err)
	}
	status, waitErr, err := s.wait(ctx, id)
	if err != nil {
		return 0, err
	}
	if err := s.Start(ctx, id); err != nil {
		return 0, fmt.Errorf("starting the container: %w", err)
	}
	var over <-chan time.Time
	for {
		select {
		case sig := <-a.Signals:
			if (sig == syscall.SIGTERM || sig == syscall.SIGINT) && over == nil && a.Stop > 0 {
				over = time.After(a.Stop)
			}
			if sig := s.signalFor(sig); sig != 0 {
				s.kill(ctx, id, sig)
			}
		case <-over:
			s.kill(ctx, id, syscall.SIGKILL)
		case code := <-status:
			<-attachErr // the last output
			return s.statusOf(code, said)
		case err := <-waitErr:
			return 0, fmt.Errorf("waiting for the container: %w", err)
		}
	}
}

// Remove removes a container that was never started.
func (s *Service) Remove(ctx context.Context, id string) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	if _, err := containers.Remove(conn, id, nil); err != nil {
		return fmt.Errorf("removing the container: %w", err)
	}
	return nil
}

func (s *Service) attach(ctx context.Context, id string, io Streams) (chan bool, chan error, error) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	ready, done := make(chan bool), make(chan error, 1)
	stream := true
	go func() {
		done <- containers.Attach(conn, id, nil, io.Out, io.Err, ready, &containers.AttachOptions{Stream: &stream})
	}()
	return ready, done, nil
}

// wait is begun before the start, so that it finds the container even when
// Podman removes it as soon as it ends.
func (s *Service) wait(ctx context.Context, id string) (chan int, chan error, error) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	status, failed := make(chan int, 1), make(chan error, 1)
	interval := "100ms"
	go func() {
		code, err := containers.Wait(conn, id, &containers.WaitOptions{Conditions: []string{"stopped", "exited"}, Interval: &interval})
		if err != nil {
			failed <- err
			return
		}
		status <- int(code)
	}()
	return status, failed, nil
}

func (s *Service) kill(ctx context.Context, id string, sig syscall.Signal) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return
	}
	name := fmt.Sprintf("%d", int(sig))
	_ = containers.Kill(conn, id, &containers.KillOptions{Signal: &name})
}
