package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

// mountVolumes makes the image's VOLUMEs writable where the root is not, in
// memory. One that has content stays as it is: to copy it would take as much of
// the guest's memory again. The build made those that the image lacks.
func mountVolumes(p *krun.Process) error {
	for _, dir := range slices.Sorted(maps.Keys(p.Volumes)) {
		options, err := volumeOptions(dir)
		if err != nil {
			return err
		}
		if options == "" {
			continue
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
			return fmt.Errorf("mounting the volume %s: %w", dir, err)
		}
	}
	return nil
}

// volumeOptions gives the file system in memory the owner and mode of the
// directory below it; empty for what is not an empty directory.
func volumeOptions(dir string) (string, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return "", nil
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return "", err
	}
	return fmt.Sprintf("mode=%o,uid=%d,gid=%d", st.Mode&0o7777, st.Uid, st.Gid), nil
}
