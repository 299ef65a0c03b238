package workload

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/transports/alltransports"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/workload/registry"
)

// compareName warns when a registry does not have what was pushed under its
// name: what is said of the image, from memory, holds for its digest only.
func (e *Environment) compareName(ctx context.Context, name, pushed string) {
	if !strings.HasPrefix(name, "docker://") {
		return
	}
	now, err := e.nameNow(ctx, name)
	switch {
	case err != nil:
		e.Warn(fmt.Sprintf("%s is pushed; reading its name back: %v", name, err))
	case now != pushed:
		e.Warn(fmt.Sprintf("the registry answers %s with %s, pushed was %s: somebody else has pushed there, or it lies. Give others the digest", name, now, pushed))
	}
}

func (e *Environment) nameNow(ctx context.Context, name string) (string, error) {
	ref, err := alltransports.ParseImageName(name)
	if err != nil {
		return "", err
	}
	c, err := registry.NewClient(e.System, ref)
	if err != nil {
		return "", err
	}
	tagged, ok := ref.DockerReference().(reference.Tagged)
	if !ok {
		return "", errors.New("it has no tag")
	}
	now, err := c.TagNow(ctx, tagged.Tag())
	return now.String(), err
}

// compareDigest warns when the image that is to be rotated is not the one that
// the server knows. Podman gives an image another digest when it pushes it; and
// whoever keeps it can put its layer under a configuration of their own, which
// the rotated image would take over. While a rotation is under way it may be the
// new one, of which the server does not know yet.
func (e *Environment) compareDigest(name, got string, status *kbs.WorkloadStatus) {
	if status.Rotation == "" && status.Image != "" && got != status.Image {
		e.Warn(fmt.Sprintf("%s is %s, the workload's image is %s: the disk and identity in it are the workload's, its configuration and labels may be anybody's", name, got, status.Image))
	}
}
