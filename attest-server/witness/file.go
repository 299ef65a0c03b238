package witness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
)

// fileName is what File keeps of a log in its directory, and the end of an
// Object's URL.
func fileName(origin, ending string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("-._", r) || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' {
			return r
		}
		return '_'
	}, origin) + ending
}

// File is a directory elsewhere, such as a network file system, best one that
// only takes additions. Of each log there is a file, in which each checkpoint is a
// line behind the others; none is ever changed.
type File struct{ Dir string }

// Show implements Witness. File does not sign.
func (f File) Show(ctx context.Context, log Log, c checkpoint.Signed, first bool) ([]byte, error) {
	file, err := f.open(c.Origin, first)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	seen, err := lastRecord(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	if seen == nil && !first {
		return nil, fmt.Errorf("%w: %s holds no checkpoint", ErrNothing, file.Name())
	}
	if seen != nil {
		if err := extends(ctx, log, c, seen); err != nil {
			return nil, err
		}
		if s, err := checkpoint.Peek(seen); err == nil && s == c.Checkpoint {
			return nil, nil
		}
	}
	if err := appendRecord(file, c.Note); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return nil, nil
}

// open opens the file for this process alone.
func (f File) open(origin string, create bool) (*os.File, error) {
	path := f.Path(origin)
	flags := os.O_RDWR | os.O_APPEND
	if create {
		flags |= os.O_CREATE
	}
	file, err := os.OpenFile(path, flags, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if _, dirErr := os.Stat(f.Dir); dirErr == nil {
			return nil, fmt.Errorf("%w: there is no %s", ErrNothing, path)
		}
	}
	if err == nil {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err == nil && create {
			err = syncDir(f.Dir)
		}
		if err != nil {
			file.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: opening its file: %w", ErrAway, err)
	}
	return file, nil
}

// appendRecord adds a line in one write, and has it on disk. It ends a line that
// a crash has cut off.
func appendRecord(f *os.File, note []byte) error {
	line, err := json.Marshal(record{string(note)})
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if size := info.Size(); size > 0 {
		var last [1]byte
		if _, err := f.ReadAt(last[:], size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = append([]byte("\n"), line...)
		}
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Path is the file of the log named origin.
func (f File) Path(origin string) string { return filepath.Join(f.Dir, fileName(origin, ".jsonl")) }

// Each calls each with every checkpoint of the log named origin, oldest first.
func (f File) Each(origin string, each func(note []byte) error) error {
	file, err := os.Open(f.Path(origin))
	if err != nil {
		return err
	}
	defer file.Close()
	return eachRecord(file, each)
}
