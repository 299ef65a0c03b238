package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

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
