package guest

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
)

// newRoot is where the disk's file system is mounted.
const newRoot = "/newroot"

// A mount is the arguments of mount(2).
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) String() string { return m.fstype + " on " + m.target }

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mounting %s: %w", m, err)
	}
	return nil
}

const noExec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// hasFilesystem says whether the running kernel can mount fstype.
func hasFilesystem(fstype string) bool {
	list, err := bounded.File("/proc/filesystems", 64<<10)
	if err != nil {
		return false
	}
	for line := range bytes.Lines(list) {
		if f := bytes.Fields(line); len(f) > 0 && string(f[len(f)-1]) == fstype {
			return true
		}
	}
	return false
}
