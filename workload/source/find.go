package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/pkg/shortnames"
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/localstore"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/scratch"
)

// findSource opens name by its transport, or without one looks where Podman
// looks: local storage first, then the registries of registries.conf.
func findSource(ctx context.Context, sys *types.SystemContext, name string) (types.ImageSource, error) {
	if alltransports.TransportFromImageName(name) != nil {
		if err := localstore.Need(name); err != nil {
			return nil, err
		}
		ref, err := alltransports.ParseImageName(name)
		if err != nil {
			return nil, hint.With(hint.Usagef("source %q: %w", name, err), "%s", transportHint(name))
		}
		return openReference(ctx, sys, ref)
	}
	src, err := findLocal(ctx, sys, name)
	if src != nil || err != nil {
		return src, err
	}
	return findRemote(ctx, sys, name)
}

// transportHint says what name may have been meant to be.
func transportHint(name string) string {
	const forms = "docker://NAME, oci:DIR, oci-archive:FILE, docker-archive:FILE, dir:DIR, containers-storage:NAME, or a NAME alone"
	if rest, ok := strings.CutPrefix(name, "docker:"); ok {
		return "say docker://" + strings.TrimLeft(rest, "/")
	}
	return "an image is " + forms
}

// openReference opens ref without plaintext in named temporary files.
func openReference(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (types.ImageSource, error) {
	var src types.ImageSource
	var err error
	if strings.HasSuffix(ref.Transport().Name(), "-archive") {
		src, err = openArchive(ctx, ref, scratch.DirOf(sys))
	} else {
		err = registry.PatienceFor(ctx, ref).Do(ctx, func(ctx context.Context) error {
			src, err = ref.NewImageSource(ctx, sys)
			return err
		})
	}
	if err == nil {
		return src, nil
	}
	err = fmt.Errorf("opening %s: %w", localstore.Name(ref), err)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, hint.With(err, "check the path")
	case errors.Is(err, istorage.ErrNoSuchImage):
		return nil, hint.With(err, "`podman images` lists what is there; `podman pull` or the docker:// transport fetches more")
	case ref.Transport().Name() == "docker":
		return nil, registry.WithHint(err, "check the name and the network; `podman login` for a private registry")
	}
	return nil, err
}

// findLocal returns nil and no error when local storage does not have name.
func findLocal(ctx context.Context, sys *types.SystemContext, name string) (types.ImageSource, error) {
	store, err := localstore.Open()
	if err != nil {
		return nil, err
	}
	if img, err := store.Image(name); err == nil && strings.HasPrefix(img.ID, name) && len(name) >= 3 {
		ref, err := istorage.Transport.NewStoreReference(store, nil, img.ID)
		if err != nil {
			return nil, err
		}
		return openReference(ctx, sys, ref)
	}
	candidates, err := shortnames.ResolveLocally(sys, name)
	if err != nil {
		return nil, hint.With(hint.Usagef("source %q: %w", name, err), "%s", transportHint(name))
	}
	for _, c := range candidates {
		ref, err := istorage.Transport.NewStoreReference(store, c, "")
		if err != nil {
			return nil, err
		}
		src, err := ref.NewImageSource(ctx, sys)
		if err == nil {
			return src, nil
		}
		if !errors.Is(err, istorage.ErrNoSuchImage) && !errors.Is(err, storage.ErrImageUnknown) {
			return nil, fmt.Errorf("opening %s: %w", localstore.Name(ref), err)
		}
	}
	return nil, nil
}

func findRemote(ctx context.Context, sys *types.SystemContext, name string) (types.ImageSource, error) {
	resolved, err := shortnames.Resolve(sys, name)
	if err != nil {
		return nil, hint.With(fmt.Errorf("source %q is not in local storage: %w", name, err),
			"give a full name such as docker://registry.example/app:1, or a transport such as oci:DIR")
	}
	var errs []error
	for _, c := range resolved.PullCandidates {
		ref, err := docker.NewReference(c.Value)
		if err != nil {
			return nil, err
		}
		src, err := openReference(ctx, sys, ref)
		if err == nil {
			return src, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("source %q is not in local storage: %w", name, errors.Join(errs...))
}
