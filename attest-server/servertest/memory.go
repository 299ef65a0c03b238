package servertest

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// shared is the file system in memory that every Linux has, and room what has to
// be free there: a container's may be tiny.
const (
	shared = "/dev/shm"
	room   = 1 << 30
)

// Run is m.Run with temporary directories in memory, if there is room. Each
// store of a test waits for its disk a dozen times, each time for all that other
// processes write: that is most of what such tests took. Nothing is lost with
// it, for a killed process leaves what it wrote, on disks and in memory.
func Run(m *testing.M) int {
	if os.Getenv("TMPDIR") != "" {
		return m.Run()
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(shared, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < room {
		return m.Run()
	}
	dir, err := os.MkdirTemp(shared, "attest-server")
	if err != nil {
		return m.Run()
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv("TMPDIR", dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
