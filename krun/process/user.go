package process

import (
	"fmt"
	"io"
	"slices"

	"github.com/moby/sys/user"

	"github.com/ccrun/ccrun/hint"
)

// MaxDatabase bounds /etc/passwd and /etc/group of the image.
const MaxDatabase = 8 << 20

// Credentials are a workload's, looked up in its own user database.
type Credentials struct {
	UID, GID int
	Groups   []int // supplementary, GID first
	Home     string
}

// LookUp resolves an OCI User ("", name|uid[:group|gid]) in the texts of passwd
// and group, either of which may be nil. As Podman does, it gives a user named
// with a group no other groups.
func LookUp(spec string, passwd, group io.Reader) (Credentials, error) {
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return Credentials{}, hint.With(fmt.Errorf("looking up user %q in the image: %w", spec, err), "correct the image's User")
	}
	home := u.Home
	if home == "" {
		home = "/"
	}
	groups := []int{u.Gid}
	for _, g := range u.Sgids {
		if !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	return Credentials{UID: u.Uid, GID: u.Gid, Groups: groups, Home: home}, nil
}
