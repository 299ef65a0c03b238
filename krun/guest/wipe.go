package guest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// wipeProcess stops a child, overwrites all memory that is its alone, and ends
// it. Only pages that it has are written: others would be made by that. If it
// cannot overwrite them it still ends the child.
func wipeProcess(pid int) error {
	err := stopChild(pid)
	if err == nil {
		err = overwrite(fmt.Sprintf("/proc/%d/", pid))
	}
	return errors.Join(err, endChild(pid))
}

// stopChild returns when no thread of the child runs any more.
func stopChild(pid int) error {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return fmt.Errorf("stopping it: %w", err)
	}
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, unix.WUNTRACED, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("stopping it: %w", err)
		case ws.Stopped():
			return nil
		case ws.Exited() || ws.Signaled():
			return errors.New("it ended before it was stopped")
		}
	}
}

func endChild(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); errors.Is(err, unix.ESRCH) {
		return nil // ended and waited for
	} else if err != nil {
		return err
	}
	for {
		var ws unix.WaitStatus
		_, err := unix.Wait4(pid, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD) || err == nil && (ws.Exited() || ws.Signaled()):
			return nil
		case err != nil:
			return err
		}
	}
}

// A memoryRange is addresses of one mapping.
type memoryRange struct{ start, end uint64 }

// overwrite fills what a stopped process can write with zeros, below its
// directory in /proc.
func overwrite(proc string) error {
	maps, err := os.Open(proc + "maps")
	if err != nil {
		return err
	}
	defer func() { _ = maps.Close() }()
	memory, err := os.OpenFile(proc+"mem", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = memory.Close() }()
	pages, err := os.Open(proc + "pagemap")
	if err != nil {
		return err
	}
	defer func() { _ = pages.Close() }()
	wiped := 0
	lines := bufio.NewScanner(maps)
	for lines.Scan() {
		r, private, err := parseMapping(lines.Text())
		if err != nil {
			return err
		}
		if !private {
			continue
		}
		n, err := overwriteRange(memory, pages, r)
		if err != nil {
			return fmt.Errorf("overwriting %s: %w", lines.Text(), err)
		}
		wiped += n
	}
	if err := lines.Err(); err != nil {
		return err
	}
	if wiped == 0 {
		return errors.New("it has no memory, which cannot be")
	}
	return nil
}

// parseMapping reads a line of /proc/PID/maps (proc_pid_maps(5)). private:
// what the process writes there is its own.
func parseMapping(line string) (r memoryRange, private bool, err error) {
	f := strings.Fields(line)
	if len(f) < 5 || len(f[1]) != 4 {
		return r, false, fmt.Errorf("mapping %q is not understood", line)
	}
	start, end, _ := strings.Cut(f[0], "-")
	var errs [2]error
	r.start, errs[0] = strconv.ParseUint(start, 16, 64)
	r.end, errs[1] = strconv.ParseUint(end, 16, 64)
	if err := errors.Join(errs[:]...); err != nil || r.end < r.start {
		return r, false, fmt.Errorf("mapping %q is not understood: %w", line, err)
	}
	return r, f[1][1] == 'w' && f[1][3] == 'p', nil
}

const (
	pageBytes   = 4096
	pagePresent = 1 << 63 // Documentation/admin-guide/mm/pagemap.rst
	pageSwapped = 1 << 62
	pagesAtOnce = 512
)

// overwriteRange returns how many pages there were.
func overwriteRange(memory, pages *os.File, r memoryRange) (n int, err error) {
	var zero [pageBytes]byte
	var entries [8 * pagesAtOnce]byte
	for at := r.start; at < r.end; {
		want := min(pagesAtOnce, (r.end-at)/pageBytes)
		got, err := pages.ReadAt(entries[:8*want], int64(at/pageBytes*8))
		if got < 8 {
			return n, fmt.Errorf("asking for its pages: %w", err)
		}
		for i := 0; i+8 <= got; i += 8 {
			if binary.LittleEndian.Uint64(entries[i:])&(pagePresent|pageSwapped) != 0 {
				if _, err := memory.WriteAt(zero[:], int64(at)); err != nil {
					return n, err
				}
				n++
			}
			at += pageBytes
		}
	}
	return n, nil
}
