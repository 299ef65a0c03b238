package volumefile

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/ccrun/ccrun/krun"
)

// A backup is backupMagic; then for each part of the areas that is no hole, where
// it begins and how long it is, 64-bit little endian each, and its bytes; then
// two numbers of all ones, the length of the volume file, and the SHA-256 of all
// before. It holds no head: images are elsewhere.
const (
	backupMagic = "ccrun volume backup v1\n"
	noMore      = ^uint64(0)
)

// errBackup is what a file is that ends early, or is none of ours.
var errBackup = errors.New("not a whole backup of a volume file")

// Backup writes the areas of a volume file that no machine has.
func Backup(path string, to io.Writer) error {
	f, err := open(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := isOurs(f, path); err != nil {
		return err
	}
	return whileFree(path, func(*state) error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		w := bufio.NewWriterSize(to, 1<<20)
		sum := sha256.New()
		if err := writeAreas(io.MultiWriter(w, sum), f, info.Size()); err != nil {
			return fmt.Errorf("writing the backup: %w", err)
		}
		if _, err := w.Write(sum.Sum(nil)); err != nil {
			return fmt.Errorf("writing the backup: %w", err)
		}
		return w.Flush()
	})
}

func writeAreas(w io.Writer, f *os.File, size int64) error {
	if _, err := io.WriteString(w, backupMagic); err != nil {
		return err
	}
	err := eachData(f, krun.VolumesOffset, size, func(at, n int64) error {
		if err := binary.Write(w, binary.LittleEndian, []uint64{uint64(at), uint64(n)}); err != nil {
			return err
		}
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(w, f, n)
		return err
	})
	if err != nil {
		return err
	}
	return binary.Write(w, binary.LittleEndian, []uint64{noMore, noMore, uint64(size)})
}

// Restore makes a volume file of a backup. path must not exist, and does not before
// all of the backup was read and found whole.
func Restore(path string, from io.Reader) error {
	return makeFile(path, func(f *os.File) error {
		if err := readBackup(from, f); err != nil {
			return fmt.Errorf("restoring the volume file: %w", err)
		}
		return nil
	})
}

func readBackup(from io.Reader, f *os.File) error {
	raw, sum := bufio.NewReaderSize(from, 1<<20), sha256.New()
	if err := readAreas(io.TeeReader(raw, sum), f); err != nil {
		return err
	}
	if err := checkSum(raw, sum); err != nil {
		return err
	}
	return lengthen(f, leastBytes)
}

func checkSum(r io.Reader, sum hash.Hash) error {
	want := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r, want); err != nil {
		return errBackup
	}
	if n, _ := r.Read(make([]byte, 1)); n != 0 || !bytes.Equal(want, sum.Sum(nil)) {
		return errBackup
	}
	return nil
}

// readAreas takes parts in order, inside the areas.
func readAreas(r io.Reader, f *os.File) error {
	magic := make([]byte, len(backupMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != backupMagic {
		return errBackup
	}
	const end = krun.VolumesOffset + krun.MaxVolumes*krun.VolumeStride
	for last := int64(krun.VolumesOffset); ; {
		var part [2]uint64
		if err := binary.Read(r, binary.LittleEndian, &part); err != nil {
			return errBackup
		}
		if part == [2]uint64{noMore, noMore} {
			var size uint64
			if err := binary.Read(r, binary.LittleEndian, &size); err != nil || size < uint64(last) || size > end {
				return errBackup
			}
			return lengthen(f, int64(size))
		}
		if part[0] < uint64(last) || part[0] > end || part[1] == 0 || part[1] > end-part[0] {
			return errBackup
		}
		if _, err := f.Seek(int64(part[0]), io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(f, r, int64(part[1])); errors.Is(err, io.EOF) {
			return errBackup
		} else if err != nil {
			return err
		}
		last = int64(part[0] + part[1])
	}
}
