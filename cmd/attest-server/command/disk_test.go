package command

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// smallDisk mounts a file system of some MiB.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("needs the right to mount a small file system")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// logged is process with its log, the debug one.
func logged(t *testing.T, args ...string) (cmd *exec.Cmd, url string, log *buffer) {
	t.Helper()
	log = new(buffer)
	cmd, url = processTo(t, log, nil, append(args, "--log-level", "debug")...)
	return cmd, url, log
}

// TestFullDisk fills the disk under a server: owners are told to come back,
// whoever needs no write is served, and with room again nothing is missing.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, 8)
	dir := filepath.Join(disk, "data")
	token := strings.TrimSpace(mustRun(t, "init", "--data", dir, "--name", "127.0.0.1"))
	_, url, log := logged(t, "--data", dir)
	c := admin(t, dir, url, token)
	acknowledged := map[string]bool{}
	register := func(i int) error {
		r := registration(fmt.Sprintf("w%d", i), i)
		r.Registration.Image = strings.Repeat("x", 500)
		_, err := c.Register(t.Context(), r)
		if err == nil {
			acknowledged[r.Registration.WorkloadID] = true
		}
		return err
	}
	if err := register(0); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(disk, "filler")
	fillUp(t, filler)
	var p *kbs.ProblemError
	refused := 0
	for i := 1; i < 3000 && refused < 3; i++ {
		if err := register(i); err != nil {
			refused++
			if !errors.As(err, &p) || p.Status != 503 || p.Code != kbs.CodeUnavailable {
				t.Fatalf("register on a full disk: %v", err)
			}
		}
	}
	if refused == 0 {
		t.Fatal("the disk was never full: the test shows nothing")
	}
	if _, err := c.List(t.Context()); err != nil {
		t.Errorf("reading on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := register(5000 + i); err != nil {
			t.Fatalf("register with room again: %v", err)
		}
	}
	for id := range acknowledged {
		if _, err := c.Get(t.Context(), id); err != nil {
			t.Errorf("lost: %v", err)
		}
	}
	mustRun(t, "audit", "verify", "--data", dir)
	if s := log.String(); !strings.Contains(s, "free space on the store's file system") || strings.Contains(s, token) || strings.Contains(s, "disk key of") {
		t.Errorf("log without a next step, or with a secret: %.2000s", s)
	}
}

func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 64<<10)
	for ; err == nil; _, err = f.Write(b) {
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// TestReadOnlyDisk starts a server on a disk that cannot be written: it says so
// at once, and what to do.
func TestReadOnlyDisk(t *testing.T) {
	disk := smallDisk(t, 8)
	dir := filepath.Join(disk, "data")
	mustRun(t, "init", "--data", dir, "--name", "127.0.0.1")
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, _, err := run(t.Context(), "serve", "--data", dir, "--listen", "127.0.0.1:0")
	if waited := time.Since(start); waited > databaseWait/2 {
		t.Errorf("serve waited %v for a disk to become writable", waited)
	}
	if err == nil || !strings.Contains(err.Error(), "make the store's directory writable") && !strings.Contains(err.Error(), "permissions of the store's directory") {
		t.Errorf("serve on a read-only disk: %v", err)
	}
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	process(t, nil, "--data", dir)
}

// TestDamagedStore flips bytes in the file of a stopped server: the next start
// or the next request says so, and what to do.
func TestDamagedStore(t *testing.T) {
	dir, token := initDir(t)
	cmd, url := process(t, nil, "--data", dir)
	c := admin(t, dir, url, token)
	for i := range 40 {
		if _, err := c.Register(t.Context(), registration(fmt.Sprintf("w%d", i), i)); err != nil {
			t.Fatal(err)
		}
	}
	_ = cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, storeName)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	atStart, atUse := 0, 0
	for at := 0; at < len(whole); at += 4096 * (1 + len(whole)/4096/24) {
		if atStart > 0 && atUse > 0 && os.Getenv("CCRUN_LONG") == "" {
			break // all 24 take seconds
		}
		b := append([]byte(nil), whole...)
		for i := range min(4096, len(b)-at) {
			b[at+i] ^= 0xa5
		}
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := run(t.Context(), "serve", "--data", dir, "--check-config")
		if err != nil {
			atStart++
			if !strings.Contains(err.Error(), "restore the last backup") {
				t.Errorf("page %d: no next step in %v", at/4096, err)
			}
			continue
		}
		cmd, url := process(t, nil, "--data", dir)
		c := admin(t, dir, url, token)
		_, list := c.List(t.Context())
		for i := range 40 {
			_, err := c.Get(t.Context(), fmt.Sprintf("w%d", i))
			list = errors.Join(list, err)
		}
		_, err = c.Register(t.Context(), registration("after", 99))
		if list = errors.Join(list, err); list != nil {
			atUse++
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.Remove(file + "-wal")
		_ = os.Remove(file + "-shm")
	}
	t.Logf("of damaged pages %d seen at start, %d at use", atStart, atUse)
	if atStart == 0 || atUse == 0 {
		t.Error("the test shows nothing")
	}
}
