package guest

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// maxUserDatabase bounds /etc/passwd and /etc/group of the image.
const maxUserDatabase = 8 << 20

// credentials are the workload's, looked up in its own user database.
type credentials struct {
	uid, gid int
	groups   []int
	home     string
}

// lookUpUser resolves an OCI User ("", name|uid[:group|gid]) in the user
// database under etc, a directory inside the workload's root. A missing file
// is an empty one.
func lookUpUser(spec, etc string) (credentials, error) {
	passwd, err := openDatabase(etc + "/passwd")
	if err != nil {
		return credentials{}, err
	}
	defer closeDatabase(passwd)
	group, err := openDatabase(etc + "/group")
	if err != nil {
		return credentials{}, err
	}
	defer closeDatabase(group)
	return parseUser(spec, passwd, group)
}

func openDatabase(path string) (io.Reader, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxUserDatabase {
		_ = f.Close()
		return nil, fmt.Errorf("%s: expected a regular file of at most %d bytes", path, maxUserDatabase)
	}
	return f, nil
}

func closeDatabase(r io.Reader) {
	if c, ok := r.(io.Closer); ok {
		_ = c.Close()
	}
}

// parseUser resolves spec in the texts of passwd and group, either of which
// may be nil. A user given with a group has no supplementary groups.
func parseUser(spec string, passwd, group io.Reader) (credentials, error) {
	u, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, passwd, group)
	if err != nil {
		return credentials{}, hint.With(fmt.Errorf("looking up user %q in the image: %w", spec, err), "correct the image's User")
	}
	home := u.Home
	if home == "" {
		home = "/"
	}
	return credentials{uid: u.Uid, gid: u.Gid, groups: u.Sgids, home: home}, nil
}
