package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
)

// readHeader is the area's header. used with an error: something else is there.
func (d *volumeDevice) readHeader() (h krun.VolumeHeader, used bool, err error) {
	f, err := os.Open(d.place.Device)
	if err != nil {
		return h, false, fmt.Errorf("opening the volume: %w", err)
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, krun.VolumeHeaderBytes)
	if _, err := f.ReadAt(b, d.areaBytes); err != nil {
		return h, false, fmt.Errorf("reading the volume's header: %w", err)
	}
	if h, used, err = krun.DecodeVolumeHeader(b); err != nil {
		return h, true, err
	}
	return h, used, nil
}

// writeEmpty makes the area one without a readable sector.
func (d *volumeDevice) writeEmpty() error {
	return d.writeAt(d.place.StartBytes+d.geometry.DataOffsetBytes, func(w io.Writer) error { return luks.WriteEmpty(w, d.geometry) })
}

func (d *volumeDevice) writeHeader(h krun.VolumeHeader) error {
	b, err := h.Encode()
	if err != nil {
		return err
	}
	return d.writeAt(d.areaBytes, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

// grow lays the data out for more than it was: only dm-integrity's superblock says
// how much that is.
func (d *volumeDevice) grow() error {
	return d.writeAt(d.place.StartBytes+d.geometry.DataOffsetBytes, func(w io.Writer) error { return luks.WriteSuperblock(w, d.geometry) })
}

func (d *volumeDevice) writeAt(offset int64, write func(io.Writer) error) (err error) {
	f, err := os.OpenFile(d.place.Device, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("opening the volume: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := write(io.NewOffsetWriter(f, offset)); err != nil {
		return fmt.Errorf("writing the volume: %w", err)
	}
	return f.Sync()
}

// fillVolume copies what the image has at path, and its owner and mode, as Podman
// fills a new volume. What the image lacks is an empty directory of root's.
func fillVolume(root, path, to string) error {
	at, err := openInRoot(root, path)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	from := fmt.Sprintf("/proc/self/fd/%d/.", at.Fd())
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if _, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() {
		return fmt.Errorf("%s is no directory", path)
	}
	below, err := os.OpenRoot(from)
	if err != nil {
		return err
	}
	defer func() { _ = below.Close() }()
	if err := copyTree(below, to); err != nil {
		return err
	}
	return copyOwner(info, to)
}

// openInRoot opens a path as a process would that has root for its root: the
// image's links lead nowhere else.
func openInRoot(root, path string) (*os.File, error) {
	dir, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	fd, err := unix.Openat2(int(dir.Fd()), "."+filepath.Clean("/"+path), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// makeInRoot makes the directories that lead to path.
func makeInRoot(root, path string) error {
	dir, name := filepath.Split(strings.TrimSuffix(path, "/"))
	at, err := openInRoot(root, filepath.Join("/", dir, "."))
	if errors.Is(err, unix.ENOENT) && dir != "/" {
		if err = makeInRoot(root, filepath.Clean(dir)); err == nil {
			at, err = openInRoot(root, dir)
		}
	}
	if err != nil {
		return err
	}
	defer func() { _ = at.Close() }()
	return unix.Mkdirat(int(at.Fd()), name, 0o755)
}
