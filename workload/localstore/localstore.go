// Package localstore is the container storage of this machine.
package localstore

import (
	"errors"
	"fmt"
	"os"
	"strings"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"

	"github.com/ccrun/ccrun/hint"
	_ "github.com/ccrun/ccrun/hint/set_GOFLAGS_as_in_AGENTS.md"
)

// ErrNeedUserNamespace reports that the containers-storage of an unprivileged
// user must be opened from within that user's user namespace.
var ErrNeedUserNamespace = errors.New("local container storage of an unprivileged user needs its user namespace")

// Open opens the local container storage that storage.conf describes.
func Open() (storage.Store, error) {
	if os.Geteuid() != 0 {
		return nil, ErrNeedUserNamespace
	}
	opts, err := storage.DefaultStoreOptions()
	if err != nil {
		return nil, fmt.Errorf("reading storage.conf: %w", err)
	}
	store, err := storage.GetStore(opts)
	if err != nil {
		return nil, hint.With(fmt.Errorf("opening local container storage: %w", err),
			"see storage.conf(5); a transport such as oci:DIR or docker:// needs no local storage")
	}
	return store, nil
}

// Need fails early, before the containers/image library would, when name
// needs a user namespace that this process is not in.
func Need(name string) error {
	if strings.HasPrefix(name, "containers-storage:") && os.Geteuid() != 0 {
		return ErrNeedUserNamespace
	}
	return nil
}

// Name is ref as a person would write it, with its transport.
func Name(ref types.ImageReference) string {
	name := ref.StringWithinTransport()
	if _, ok := ref.Transport().(istorage.StoreTransport); ok {
		name = name[strings.IndexByte(name, ']')+1:] // which storage goes without saying
	}
	return ref.Transport().Name() + ":" + strings.TrimSuffix(name, ":")
}
