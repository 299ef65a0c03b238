package guest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

// mountVolumes makes the image's VOLUMEs writable where the root is not: in
// memory, with what the image has there, as Podman fills a new volume. The build
// made those that the image lacks.
func mountVolumes(p *krun.Process) error {
	for _, dir := range slices.Sorted(maps.Keys(p.Volumes)) {
		if err := mountVolume(dir); err != nil {
			return fmt.Errorf("mounting the volume %s: %w", dir, err)
		}
	}
	return nil
}

func mountVolume(dir string) error {
	options, err := volumeOptions(dir)
	if err != nil || options == "" {
		return err
	}
	below, err := os.OpenRoot(dir) // what the mount will hide
	if err != nil {
		return err
	}
	defer func() { _ = below.Close() }()
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return err
	}
	return copyTree(below, dir)
}

// volumeOptions gives the file system in memory the owner and mode of the
// directory below it; empty for what is no directory.
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
	return fmt.Sprintf("mode=%o,uid=%d,gid=%d", st.Mode&0o7777, st.Uid, st.Gid), nil
}

// copyTree copies directories, files and links, with owners and modes. What else
// there may be, devices and pipes, a volume does not need.
func copyTree(from *os.Root, to string) error {
	return fs.WalkDir(from.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := from.Lstat(name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case info.IsDir():
			err = os.Mkdir(target, 0o700)
		case info.Mode().IsRegular():
			err = copyRegular(from, name, target)
		case info.Mode()&fs.ModeSymlink != 0:
			err = copyLink(from, name, target)
		default:
			return nil
		}
		if err != nil {
			return err
		}
		return copyOwner(info, target)
	})
}

func copyRegular(from *os.Root, name, to string) (err error) {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

func copyLink(from *os.Root, name, to string) error {
	target, err := from.Readlink(name)
	if err != nil {
		return err
	}
	return os.Symlink(target, to)
}

// copyOwner sets the owner first: it clears set-user-ID bits.
func copyOwner(info fs.FileInfo, to string) error {
	st := info.Sys().(*syscall.Stat_t)
	if err := unix.Lchown(to, int(st.Uid), int(st.Gid)); err != nil || st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return err
	}
	return unix.Chmod(to, st.Mode&0o7777)
}
