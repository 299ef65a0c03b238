package guest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
)

// mountVolumes makes the image's VOLUMEs writable where the root is not: in
// memory, with what the image has there, as Podman fills a new volume. The build
// made those that the image lacks. kept are the workload's own volumes, which are
// mounted already and stay where they are.
func mountVolumes(p *krun.Process, kept []string) error {
	for _, dir := range slices.Sorted(maps.Keys(p.Volumes)) {
		if slices.ContainsFunc(kept, func(k string) bool { return isWithin(dir, k) }) {
			continue
		}
		if err := mountAround(dir, kept); err != nil {
			return fmt.Errorf("mounting the volume %s: %w", dir, err)
		}
	}
	return nil
}

// isWithin says whether dir is of or below it, as an image may write it.
func isWithin(dir, of string) bool {
	dir = path.Join("/", dir)
	return dir == of || strings.HasPrefix(dir, of+"/")
}

// mountAround is mountVolume of a directory with volumes below it, which are
// hidden by that mount and then put upon it.
func mountAround(dir string, kept []string) (err error) {
	hidden := map[string]int{}
	defer func() {
		for _, tree := range hidden {
			err = errors.Join(err, unix.Close(tree))
		}
	}()
	for _, k := range kept {
		if !isWithin(k, path.Join("/", dir)) {
			continue
		}
		if hidden[k], err = unix.OpenTree(unix.AT_FDCWD, k, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err != nil {
			delete(hidden, k)
			return fmt.Errorf("taking hold of volume %s: %w", k, err)
		}
	}
	if err := mountVolume(dir); err != nil {
		return err
	}
	for k, tree := range hidden {
		if err := unix.MoveMount(tree, "", unix.AT_FDCWD, k, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_SYMLINKS); err != nil {
			return fmt.Errorf("putting volume %s back: %w", k, err)
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
// there may be, devices and pipes, a volume does not need. What is mounted below
// is another's, and only its directory is made.
func copyTree(from *os.Root, to string) error {
	top, err := from.Lstat(".")
	if err != nil {
		return err
	}
	device := deviceOf(top)
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
		if err := copyOwner(info, target); err != nil {
			return err
		}
		if info.IsDir() && deviceOf(info) != device {
			return fs.SkipDir
		}
		return nil
	})
}

func deviceOf(info fs.FileInfo) uint64 { return info.Sys().(*syscall.Stat_t).Dev }

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
