package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
)

// searchCommand is what a host does that looks into the memory of its guests.
func searchCommand() *cli.Command {
	return &cli.Command{
		Name: "search", Usage: "look for what standard input holds in the memory of a process and its descendants", ArgsUsage: "PID",
		Description: "What is looked for has 16 to 1024 bytes; it is never on a command line, and not printed.\n\n" +
			"Example:\n   ccrun-sim demo search \"$(podman inspect --format '{{.State.Pid}}' vm)\" <canary",
		Action: func(c *cli.Context) error {
			if err := face.Args(c, 1, 1, "PID"); err != nil {
				return err
			}
			pid, err := strconv.Atoi(c.Args().First())
			if err != nil || pid <= 1 {
				return face.Usagef("PID %q, expected a number above 1", c.Args().First())
			}
			needle, err := bounded.Read(c.App.Reader, "standard input", 1024)
			if err == nil && len(needle) < 16 {
				err = face.Usagef("standard input has %d bytes, expected 16 to 1024", len(needle))
			}
			if err != nil {
				return err
			}
			s, err := searchAll(pid, needle)
			if err != nil {
				return fmt.Errorf("searching memory: %w", err)
			}
			_, err = fmt.Fprintf(c.App.Writer, "%d copies in %d MiB of %d processes\n", s.copies, s.bytes>>20, s.processes)
			return err
		},
	}
}

// sought is what a search found.
type sought struct {
	copies, processes int
	bytes             int64
}

// maxProcesses bounds a search.
const maxProcesses = 1024

// searchAll looks into a process and its descendants. Some may end meanwhile, but
// not the first.
func searchAll(pid int, needle []byte) (s sought, err error) {
	all := []int{pid}
	for i := 0; i < len(all) && i < maxProcesses; i++ {
		copies, n, err := searchProcess(all[i], needle)
		if err != nil && i == 0 {
			return s, err
		}
		if err == nil {
			s.processes++
		}
		s.copies, s.bytes = s.copies+copies, s.bytes+n
		all = append(all, children(all[i])...)
	}
	return s, nil
}

func children(pid int) (all []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // it may have ended
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				all = append(all, n)
			}
		}
	}
	return all
}

// searchProcess looks into all that a process can read itself.
func searchProcess(pid int, needle []byte) (copies int, read int64, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, 0, err
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, 0, err
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		var start, end int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err != nil || !strings.HasPrefix(mode, "r") {
			continue // vsyscall's addresses are above what is read here
		}
		n, size := searchRange(memory, start, end, needle)
		copies, read = copies+n, read+size
	}
	if read == 0 {
		return 0, 0, errors.New("none of it can be read: are you root?")
	}
	return copies, read, nil
}

// searchRange counts needles in a part of memory, which may end sooner. Two
// pieces of it overlap, so that none is missed between them.
func searchRange(memory io.ReaderAt, start, end int64, needle []byte) (copies int, read int64) {
	const piece = 1 << 20
	b := make([]byte, piece+len(needle)-1)
	for at := start; at < end; at += piece {
		n, err := memory.ReadAt(b[:min(int64(len(b)), end-at)], at)
		copies, read = copies+bytes.Count(b[:n], needle), read+int64(min(n, piece))
		if err != nil && n == 0 {
			break
		}
	}
	return copies, read
}
