package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/tests/diskcase"
)

// benchRounds are made over all disks in turn, so that load from outside hits
// all alike; the shortest time of each counts.
const benchRounds = 6

// bench opens all disks and times how long it takes to read each.
func bench(cases []diskcase.Case, report func(diskcase.Result) error) error {
	results := make([]diskcase.Result, len(cases))
	read := make([]func() (int64, error), len(cases))
	for i, c := range cases {
		results[i].Name = c.Name
		var err error
		if read[i], err = benchReader(c); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
	}
	for range benchRounds {
		for i := range cases {
			if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
				return err
			}
			start := time.Now()
			n, err := read[i]()
			if err != nil {
				return fmt.Errorf("%s: %w", cases[i].Name, err)
			}
			r := &results[i]
			if took := time.Since(start).Microseconds(); r.ReadMicros == 0 || took < r.ReadMicros {
				r.ReadBytes, r.ReadMicros = n, took
			}
		}
	}
	for _, r := range results {
		if err := report(r); err != nil {
			return err
		}
	}
	return nil
}

// benchReader opens a disk and returns what reads all of it once.
func benchReader(c diskcase.Case) (func() (int64, error), error) {
	device, err := findDisk(c.Serial)
	if err != nil {
		return nil, err
	}
	if c.Written {
		return benchWriter(c, device)
	}
	if c.Pattern != "" {
		return benchPattern(c, device)
	}
	s, err := newOurs(&c, device)
	if err != nil {
		return nil, err
	}
	path, err := s.open(true)
	if err != nil {
		return nil, err
	}
	if c.Filesystem == "" {
		return func() (int64, error) { return readFile(path) }, nil
	}
	root := filepath.Join("/run", c.Serial)
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount(path, root, c.Filesystem, unix.MS_RDONLY, ""); err != nil {
		return nil, fmt.Errorf("mounting %s: %w", c.Filesystem, err)
	}
	return func() (int64, error) { return readTree(root) }, nil
}

// benchWriter makes an empty disk of what it finds, and returns what writes all of it.
func benchWriter(c diskcase.Case, device string) (func() (int64, error), error) {
	g := c.Geometry
	if g.Integrity != nil {
		var err error
		if g, err = luks.ScratchGeometry(c.Geometry, c.Geometry.PlainBytes); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(device, os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		err = luks.WriteEmpty(io.NewOffsetWriter(f, g.DataOffsetBytes), g)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return nil, err
		}
	}
	vk, err := luks.NewVolumeKey(rand.Reader, g)
	if err != nil {
		return nil, err
	}
	path, err := luks.Activate(g, vk, luks.Place{Device: device}, c.Serial, false)
	if err != nil {
		return nil, err
	}
	content := diskcase.Content(1 << 20)
	return func() (int64, error) { return writeFile(path, content, g.PlainBytes) }, nil
}

func readFile(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return n, errors.Join(err, f.Close())
}

func readTree(root string) (total int64, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n, err := readFile(path)
		total += n
		return err
	})
	return total, err
}
