package volumefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// Create makes an empty volume file.
func Create(path string) error {
	return makeFile(path, func(f *os.File) error { return lengthen(f, leastBytes) })
}

// leastBytes is the length of a volume file with one area, and not even that whole.
const leastBytes = krun.VolumesOffset + krun.VolumeHeaderBytes

// makeFile makes a volume file that has its name once it is whole: a container that
// starts meanwhile, or after a crash, must not find half of one.
func makeFile(path string, fill func(*os.File) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil {
		return thereAlready(&fs.PathError{Op: "making", Path: path, Err: fs.ErrExist})
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".ccrun-volume-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("making a volume file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	if err := fill(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return whileFree(path, func(s *state) error {
		*s = state{} // of a file that was there before
		return thereAlready(os.Link(f.Name(), path))
	})
}

func thereAlready(err error) error {
	if errors.Is(err, fs.ErrExist) {
		return hint.With(fmt.Errorf("making a volume file: %w", err), "it is there already; `ccrun volume inspect` says what is in it")
	}
	return err
}

// isOurs refuses what is no volume file. An image names one, by its workload's id
// or, as Podman 4 hands on what manifests are annotated with, by any path: and
// whatever is named there is emptied, and written to by a guest.
func isOurs(f *os.File, path string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() >= leastBytes {
		if s, err := readState(path); err != nil || s.VolumeFile == stateVersion {
			return err
		}
		for slot := range krun.MaxVolumes { // one that was copied without its state
			if a, used := area(f, slot); used && a.Problem == "" {
				return nil
			}
		}
	}
	return hint.With(fmt.Errorf("%s is no volume file, or was cut", path), "`ccrun volume create` makes one; `ccrun volume restore` one of a backup")
}

// lengthen never takes anything away.
func lengthen(f *os.File, bytes int64) error {
	info, err := f.Stat()
	if err != nil || info.Size() >= bytes {
		return err
	}
	if err := f.Truncate(bytes); err != nil {
		return hint.With(fmt.Errorf("making the volume file %d bytes long: %w", bytes, err),
			"keep it on a file system that takes sparse files of that length: ext4, XFS, BTRFS")
	}
	return f.Sync()
}

// open opens a volume file, which must be a regular one.
func open(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.With(fmt.Errorf("opening the volume file: %w", err),
			"`ccrun volume create` makes an empty one for a workload that has none yet; of one that had, bring the file back, or `ccrun volume restore` a backup")
	}
	if err != nil {
		return nil, fmt.Errorf("opening the volume file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Area is what a volume file says of one of its areas.
type Area struct {
	Slot     int    `json:"slot"`
	Workload string `json:"workload,omitempty"`
	Name     string `json:"name,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
	Problem  string `json:"problem,omitempty"` // with what is there
}

// Status is what a host can know of a volume file.
type Status struct {
	File           string `json:"file"`
	SizeBytes      int64  `json:"size_bytes"`      // with holes
	AllocatedBytes int64  `json:"allocated_bytes"` // on the host's disk
	Container      string `json:"container,omitempty"`
	Attached       bool   `json:"attached"` // to a machine that runs
	Areas          []Area `json:"areas"`
}

// Inspect looks at a volume file.
func Inspect(path string) (s Status, err error) {
	f, err := open(path, os.O_RDONLY)
	if err != nil {
		return s, err
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return s, err
	}
	s = Status{File: path, SizeBytes: st.Size, AllocatedBytes: st.Blocks * 512, Areas: []Area{}}
	h, err := readState(path)
	if err != nil {
		return s, err
	}
	s.Container, s.Attached = h.Container, h.held()
	for slot := range krun.MaxVolumes {
		if a, used := area(f, slot); used {
			s.Areas = append(s.Areas, a)
		}
	}
	return s, nil
}

// area reads an area's header. used is false where nothing is.
func area(f *os.File, slot int) (a Area, used bool) {
	a.Slot = slot
	h, used, err := header(f, slot)
	if err != nil {
		a.Problem, used = err.Error(), true
	}
	a.Workload, a.Name, a.Bytes = h.Workload, h.Name, h.Bytes
	return a, used
}

// header is an area's. used is false where nothing is.
func header(f *os.File, slot int) (h krun.VolumeHeader, used bool, err error) {
	b := make([]byte, krun.VolumeHeaderBytes)
	if _, err := f.ReadAt(b, krun.Volume{Slot: slot}.Start()); err != nil {
		return h, false, nil // behind the end
	}
	return krun.DecodeVolumeHeader(b)
}

// Remove deletes a volume file that no machine uses.
func Remove(path string) error {
	f, err := open(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := isOurs(f, path); err != nil {
		return err
	}
	return whileFree(path, func(*state) error { return errors.Join(os.Remove(path), os.Remove(path+stateSuffix)) })
}

// Grow makes room in a volume file for a volume of that many bytes in slot.
func Grow(path string, slot int, bytes int64) error {
	f, err := open(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	end := krun.Volume{Slot: slot}.End(bytes)
	if slot < 0 || slot >= krun.MaxVolumes || bytes < krun.MinVolumeBytes || bytes > krun.MaxVolumeBytes {
		return hint.Usagef("a volume of %d bytes in slot %d, expected %d to %d bytes and slot 0 to %d", bytes, slot, krun.MinVolumeBytes, int64(krun.MaxVolumeBytes), krun.MaxVolumes-1)
	}
	if err := isOurs(f, path); err != nil {
		return err
	}
	return whileFree(path, func(*state) error { return lengthen(f, end/4096*4096) })
}
