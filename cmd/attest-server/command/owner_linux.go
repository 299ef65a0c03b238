package command

import (
	"io/fs"
	"os"
	"syscall"
)

// sameOwner gives path to the owner of what info describes, if root runs us.
func sameOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, int(st.Uid), int(st.Gid))
}
