package volumefile

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/crun"
)

// Attach gives a container that is about to be created the volume file of its
// workload, or the one that an annotation names, in place of its disk.img. It
// refuses one that another container's machine has. Without hints it does nothing.
func Attach(c crun.Command, s *crun.Spec, h *krun.VolumeHints) (warnings []string, mount *specs.Mount, err error) {
	if h == nil {
		return nil, nil, nil
	}
	dir, err := Dir()
	if err != nil {
		return nil, nil, err
	}
	path, err := Path(dir, cmp.Or(s.Annotations[krun.VolumesAnnotation], h.Workload))
	if err != nil {
		return nil, nil, err
	}
	if err := attach(path, c, s, h.FileBytes); err != nil {
		return nil, nil, fmt.Errorf("attaching the volumes %v: %w", h.Names, err)
	}
	if s.Root.Readonly {
		warnings = []string{"the root is in the volume file, where the guest writes to it all the same: --read-only has no effect; `ccrun build --read-only` makes a root that nothing can write to"}
	}
	return warnings, &specs.Mount{Destination: "/" + krun.DiskFile, Type: "bind", Source: path,
		Options: []string{"bind", "rprivate", "rw", "nosuid", "nodev", "noexec"}}, nil
}

func attach(path string, c crun.Command, s *crun.Spec, fileBytes int64) error {
	f, err := open(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := isOurs(f, path); err != nil {
		return err
	}
	start, err := crun.StartTime(os.Getpid()) // crun's too: it takes the runtime's place
	if err != nil {
		return err
	}
	return whileFree(path, func(st *state) error {
		if err := isStill(f, path); err != nil { // which is what crun mounts
			return err
		}
		if err := lengthen(f, wholeAreas(fileBytes)); err != nil {
			return err
		}
		if err := freeHalves(f); err != nil {
			return fmt.Errorf("freeing what a rekeyed volume has left: %w", err)
		}
		if st.Head != s.ID {
			st.Head = "" // should this not end well
			if err := copyHead(f, s); err != nil {
				return err
			}
		}
		*st = state{Container: s.ID, StateRoot: c.StateRoot(), PID: os.Getpid(), Start: start, Boot: bootID(), Head: s.ID}
		return nil
	})
}

// wholeAreas is the length of a file that has both halves of each volume's area.
func wholeAreas(fileBytes int64) int64 {
	return (fileBytes + krun.VolumeStride - 1) / krun.VolumeStride * krun.VolumeStride
}

// freeHalves gives the host back where rekeyed volumes were, but for those of which a
// guest has not said that it is done. One in the first half may reach into the other.
func freeHalves(f *os.File) error {
	for slot := range krun.MaxVolumes {
		v := krun.Volume{Slot: slot}
		h, used, err := header(f, slot)
		if err != nil || !used || h.Rekeying {
			continue
		}
		start, end := max(v.Half(1), v.End(h.Bytes)), v.Start()+krun.VolumeStride
		if h.Half == 1 {
			start, end = v.Start()+krun.VolumeHeaderBytes, v.Half(1)
		}
		if err := punch(f, start, end); err != nil {
			return err
		}
	}
	return nil
}

// copyHead puts the container's disk.img where the volume file has its hole.
func copyHead(f *os.File, s *crun.Spec) error {
	root, err := os.OpenRoot(s.RootFS)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	from, err := root.OpenFile(krun.DiskFile, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	info, err := from.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > krun.VolumesOffset {
		return errors.Join(fmt.Errorf("/%s is no disk image of up to %d bytes", krun.DiskFile, int64(krun.VolumesOffset)), err)
	}
	if err := punch(f, 0, krun.VolumesOffset); err != nil {
		return fmt.Errorf("emptying the head of the volume file: %w", err)
	}
	if err := copySparse(f, from, 0, info.Size()); err != nil {
		return fmt.Errorf("copying /%s into the volume file: %w", krun.DiskFile, err)
	}
	return f.Sync()
}

func punch(f *os.File, from, to int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, to-from)
}

// copySparse copies what is no hole, to where it was.
func copySparse(to, from *os.File, start, end int64) error {
	return eachData(from, start, end, func(at, n int64) error {
		if _, err := from.Seek(at, io.SeekStart); err != nil {
			return err
		}
		if _, err := to.Seek(at, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(to, from, n) // copy_file_range, which shares blocks where it can
		return err
	})
}

// eachData goes through the parts of f from start to end that are no holes.
func eachData(f *os.File, start, end int64, do func(at, n int64) error) error {
	for at := start; at < end; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // holes alone
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if data, hole = min(data, end), min(hole, end); data < hole {
			if err := do(data, hole-data); err != nil {
				return err
			}
		}
		at = hole
	}
	return nil
}

// WithMount is mounts with one more, in place of what had its destination.
func WithMount(mounts []specs.Mount, m *specs.Mount) []specs.Mount {
	others := slices.DeleteFunc(slices.Clone(mounts), func(o specs.Mount) bool { return o.Destination == m.Destination })
	return append(others, *m)
}
