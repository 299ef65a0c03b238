package podman

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/errorhandling"

	"github.com/ccrun/ccrun/hint"
)

// resumeLabel marks a container that may be started again, with the digest of
// what it was made of.
const resumeLabel = "io.ccrun.resume"

// notFound is HTTP's status for a container that is not there.
const notFound = 404

// recipe is the digest of what a container is made of: its image and the flags.
// A field that Container gets changes it, and so has containers made anew once.
func (c *Container) recipe(imageID, runtime string) (string, error) {
	b, err := json.Marshal(struct {
		ImageID, Runtime string
		Container        Container
	}{imageID, runtime, *c})
	if err != nil {
		return "", fmt.Errorf("describing the container: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// resumable is the id of the container of that name, stopped, if it was made of
// the same. One that was made of something else is removed; one that is not ours
// to remove is an error.
func (s *Service) resumable(conn context.Context, c *Container, recipe string) (id string, err error) {
	data, err := containers.Inspect(conn, c.Name, nil)
	var answer *errorhandling.ErrorModel
	if errors.As(err, &answer) && answer.ResponseCode == notFound {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("looking for container %s: %w", c.Name, err)
	}
	if data.Config == nil || data.Config.Labels[resumeLabel] == "" {
		return "", hint.With(fmt.Errorf("container %s exists, and no `ccrun run --resume` made it", c.Name),
			"remove it with `podman rm %s`, or choose another --name", c.Name)
	}
	if data.State != nil && data.State.Running {
		if err := containers.Stop(conn, data.ID, nil); err != nil {
			return "", fmt.Errorf("stopping the running container %s: %w", c.Name, err)
		}
	}
	if data.Config.Labels[resumeLabel] == recipe {
		return data.ID, nil
	}
	force := true
	if _, err := containers.Remove(conn, data.ID, &containers.RemoveOptions{Force: &force}); err != nil {
		return "", fmt.Errorf("removing container %s, which another image or other flags made: %w", c.Name, err)
	}
	return "", nil
}
