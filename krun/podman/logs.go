package podman

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containers/podman/v5/pkg/bindings/containers"

	"github.com/ccrun/ccrun/hint"
)

// Log copies what Podman has kept of a container's output, and with follow what
// comes, until the container has ended. Lines that the log driver had cut may
// come in pieces.
func (s *Service) Log(ctx context.Context, name string, follow bool, to Streams) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	conn, stop := context.WithCancel(conn)
	defer stop()
	out, errs, done := make(chan string), make(chan string), make(chan error, 1)
	yes := true
	go func() {
		done <- containers.Logs(conn, name, &containers.LogOptions{Follow: &follow, Stdout: &yes, Stderr: &yes}, out, errs)
	}()
	var failed error
	write := func(w io.Writer, text string) {
		if failed != nil {
			return // the other side is still to be read, or it would never end
		}
		if _, failed = io.WriteString(w, text); failed != nil {
			stop()
		}
	}
	for {
		select {
		case text := <-out:
			write(to.Out, text)
		case text := <-errs:
			write(to.Err, text)
		case err := <-done:
			switch {
			case failed != nil:
				return failed
			case err != nil && ctx.Err() == nil:
				return hint.With(fmt.Errorf("reading the log of container %s: %w", name, err), "check its name with `podman ps -a`; a log in a file is named by its path")
			}
			return ctx.Err()
		}
	}
}

// Running says whether Podman takes the container for running.
func (s *Service) Running(ctx context.Context, name string) (bool, error) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return false, err
	}
	data, err := containers.Inspect(conn, name, nil)
	if err != nil {
		return false, hint.With(fmt.Errorf("looking for container %s: %w", name, err), "check its name with `podman ps -a`; a log in a file is named by its path")
	}
	if data.State == nil {
		return false, errors.New("podman does not say whether the container runs")
	}
	return data.State.Running, nil
}
