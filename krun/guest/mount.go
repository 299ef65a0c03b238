package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
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
