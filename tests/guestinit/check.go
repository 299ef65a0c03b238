package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/tests/diskcase"
)

// run opens one disk and compares what comes of it with what c expects.
func run(c diskcase.Case) error {
	device, err := findDisk(c.Serial)
	if err != nil {
		return err
	}
	switch c.Expect {
	case diskcase.VolumeWrites:
		return writeVolume(&c, device)
	case diskcase.VolumeReads:
		return readVolume(&c, device)
	}
	if err := os.WriteFile(keyFile, []byte(c.Passphrase), 0o600); err != nil {
		return err
	}
	if c.Format {
		if err := format(&c, device); err != nil {
			return err
		}
	}
	var s stack = &theirs{device, c.Serial}
	if !c.Cryptsetup {
		if s, err = newOurs(&c, device); err != nil {
			return err
		}
	}
	path, err := s.open(c.ReadOnly)
	switch {
	case c.Expect == diskcase.Refused:
		return refused(&c, err)
	case err != nil:
		return err
	case c.Expect == diskcase.Cut:
		return check(&c, path) // and leave it open
	}
	if err := errors.Join(check(&c, path), s.close()); err != nil || c.Expect != diskcase.Writes {
		return err
	}
	if path, err = s.open(true); err != nil {
		return fmt.Errorf("opening again: %w", err)
	}
	if err := errors.Join(compare(&c, path, c.After), s.close()); err != nil {
		return fmt.Errorf("after closing and opening: %w", err)
	}
	return nil
}

// refused wants the refusal that c names and no other failure, and nothing
// left behind.
func refused(c *diskcase.Case, err error) error {
	if err == nil {
		return errors.New("opened, expected a refusal")
	}
	if c.Refusal == "" || !strings.Contains(err.Error(), c.Refusal) {
		return fmt.Errorf("refused with %q, expected %q", err, c.Refusal)
	}
	left, err := os.ReadDir("/sys/block")
	for _, d := range left {
		if strings.HasPrefix(d.Name(), "dm-") {
			err = errors.Join(err, fmt.Errorf("%s was left behind", d.Name()))
		}
	}
	return err
}

func check(c *diskcase.Case, path string) error {
	switch c.Expect {
	case diskcase.LastSectorEIO:
		return errors.Join(readable(path, 0), unreadable(path, c.Geometry.PlainBytes-4096))
	case diskcase.WrongKeyEIO:
		return errors.Join(unreadable(path, 0), unreadable(path, c.Geometry.PlainBytes-4096))
	}
	if err := compare(c, path, c.Before); err != nil {
		return err
	}
	switch c.Expect {
	case diskcase.Writes:
		return write(c, path, diskcase.WritesFor(c.Geometry.PlainBytes))
	case diskcase.Cut:
		return write(c, path, diskcase.CutWrites(c.Geometry.PlainBytes))
	case diskcase.Reads:
		if c.ReadOnly {
			return unwritable(path)
		}
		return nil
	}
	return fmt.Errorf("unknown expectation %q", c.Expect)
}

func readable(path string, offset int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(make([]byte, 4096), offset)
	return err
}

func unreadable(path string, offset int64) error {
	if err := readable(path, offset); !errors.Is(err, unix.EIO) {
		return fmt.Errorf("reading at %d: got %v, expected EIO", offset, err)
	}
	return nil
}

func unwritable(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
		return nil
	}
	if f.Sync() == nil {
		return errors.New("a device opened read-only takes writes")
	}
	return nil
}

// compare reads the whole content. cryptsetup opens whatever follows the
// segment as well (here: the footer), which is not content.
func compare(c *diskcase.Case, path, want string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n := c.Geometry.PlainBytes
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if size < n || size > n && !c.Cryptsetup {
		return fmt.Errorf("device of %d bytes, expected %d", size, n)
	}
	h := sha256.New()
	if _, err := io.CopyBuffer(h, io.NewSectionReader(f, 0, n), make([]byte, 1<<20)); err != nil {
		return fmt.Errorf("reading content: %w", err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return fmt.Errorf("content has SHA-256 %s, expected %s", got, want)
	}
	return nil
}

// write makes writes, and reads them back from the disk, not from memory.
func write(c *diskcase.Case, path string, writes []diskcase.Write) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, w := range writes {
		if _, err := f.WriteAt(w.Data, w.Offset); err != nil {
			return fmt.Errorf("writing: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	const blkflsbuf = 0x1261 // BLKFLSBUF, linux/fs.h
	if err := unix.IoctlSetInt(int(f.Fd()), blkflsbuf, 0); err != nil {
		return fmt.Errorf("dropping the device's cache: %w", err)
	}
	if err := compare(c, path, c.After); err != nil {
		return fmt.Errorf("after writing: %w", err)
	}
	return nil
}
