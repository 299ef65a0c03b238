package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/tests/diskcase"
)

const volumeRoot = "/run/volume"

// newVolume is what the agent opens a volume with. It is of no use to anybody, so
// its key is everybody's.
func newVolume(c *diskcase.Case, device string) (*ours, error) {
	g, err := luks.VolumeGeometry(c.Geometry, c.Geometry.PlainBytes)
	if err != nil {
		return nil, err
	}
	vk, err := luks.NewVolumeKey(strings.NewReader(strings.Repeat("0123456789abcdef", 16)), g)
	if err != nil {
		return nil, err
	}
	return &ours{g, vk, device, c.Serial}, os.MkdirAll(volumeRoot, 0o700)
}

// writeVolume makes the volume and writes files, until the guest ends with all open.
func writeVolume(c *diskcase.Case, device string) error {
	v, err := newVolume(c, device)
	if err != nil {
		return err
	}
	raw, err := os.OpenFile(device, os.O_WRONLY|unix.O_DIRECT|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := luks.WriteEmpty(io.NewOffsetWriter(&direct{raw}, v.geometry.DataOffsetBytes), v.geometry); err != nil {
		return err
	}
	path, err := luks.Activate(v.geometry, v.vk, luks.Place{Device: device}, v.name, false)
	if err != nil {
		return err
	}
	if err := copySeed(c.Seed, path); err != nil {
		return err
	}
	if err := unix.Mount(path, volumeRoot, "btrfs", 0, ""); err != nil {
		return err
	}
	for i := range diskcase.VolumeFiles {
		noise := filepath.Join(volumeRoot, fmt.Sprint("noise", i%5)) // nobody waits for it
		if err := os.WriteFile(noise, diskcase.VolumeFile(i+1), 0o600); err != nil {
			return err
		}
		if err := writeDurably(i); err != nil {
			return err
		}
		if err := acknowledge(raw, v.geometry.TotalBytes(), i+1); err != nil {
			return err
		}
	}
	return nil
}

// direct writes to a device that was opened with O_DIRECT, whatever is written.
type direct struct{ f *os.File }

func (d *direct) WriteAt(b []byte, at int64) (int, error) {
	buf, err := aligned(len(b))
	if err != nil {
		return 0, err
	}
	defer unix.Munmap(buf)
	return d.f.WriteAt(buf[:copy(buf, b)], at)
}

func aligned(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
}

func acknowledge(raw *os.File, at int64, files int) error {
	_, err := (&direct{raw}).WriteAt(diskcase.Mark(files), at)
	return err
}

// copySeed gives the volume an empty file system.
func copySeed(serial, to string) (err error) {
	device, err := findDisk(serial)
	if err != nil {
		return err
	}
	in, err := os.Open(device)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Sync(), out.Close()) }()
	b, zero := make([]byte, 64<<10), make([]byte, 64<<10) // whole nodes
	for at := int64(0); ; at += int64(len(b)) {
		if _, err := in.ReadAt(b, at); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if bytes.Equal(b, zero) {
			continue
		}
		if _, err := out.WriteAt(b, at); err != nil {
			return err
		}
	}
}

// writeDurably returns when the file is there to stay: every other one takes the
// place of a temporary one.
func writeDurably(i int) error {
	path := filepath.Join(volumeRoot, fmt.Sprintf("f%04d", i))
	f, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	_, err = f.Write(diskcase.VolumeFile(i))
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(path+".new", path)); err != nil {
		return err
	}
	dir, err := os.Open(volumeRoot)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// readVolume opens a volume as a power cut has left it, and goes on with it.
func readVolume(c *diskcase.Case, device string) error {
	v, err := newVolume(c, device)
	if err != nil {
		return err
	}
	path, err := luks.Activate(v.geometry, v.vk, luks.Place{Device: device}, v.name, false)
	if err != nil {
		return err
	}
	if err := unix.Mount(path, volumeRoot, "btrfs", 0, ""); err != nil {
		return errors.Join(fmt.Errorf("mounting: %w", err), v.close())
	}
	err = errors.Join(checkFiles(c.Acknowledged), writeDurably(diskcase.VolumeFiles))
	return errors.Join(err, unix.Unmount(volumeRoot, 0), v.close())
}

func checkFiles(n int) error {
	for i := range n {
		got, err := os.ReadFile(filepath.Join(volumeRoot, fmt.Sprintf("f%04d", i)))
		if err != nil {
			return fmt.Errorf("%d of %d files: %w", i, n, err)
		}
		if !bytes.Equal(got, diskcase.VolumeFile(i)) {
			return fmt.Errorf("file %d of %d has %d other bytes", i, n, len(got))
		}
	}
	return nil
}
