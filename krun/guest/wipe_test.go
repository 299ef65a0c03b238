package guest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// wipedEnv makes the test's program the child that TestWipeProcess wipes.
const wipedEnv = "CCRUN_TEST_WIPED_CHILD"

func TestMain(m *testing.M) {
	if os.Args[0] == keeperName {
		runKeeper(nil, os.Stderr, nil, testKeeperSteps())
	}
	if os.Getenv(wipedEnv) != "" {
		holder()
	}
	os.Exit(m.Run())
}

var inData [64]byte // of the child's data segment

// holder has a secret on its heap, on a stack and in its data, and waits.
func holder() {
	heap, err := io.ReadAll(io.LimitReader(os.Stdin, 64))
	if err != nil || len(heap) != 64 {
		os.Exit(3)
	}
	copies := make([][]byte, 64)
	for i := range copies {
		copies[i] = bytes.Clone(heap)
	}
	copy(inData[:], heap)
	var onStack [64]byte
	copy(onStack[:], heap)
	fmt.Println("ready")
	for {
		_ = unix.Pause()
		if bytes.Equal(onStack[:], copies[0]) { // both are still in use
			fmt.Println(onStack[0])
		}
	}
}

// find counts needle in what a process has in its memory.
func find(t *testing.T, pid int, needle []byte) (n int) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d/", pid)
	maps, err := os.ReadFile(proc + "maps")
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(proc + "mem")
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		r, _, err := parseMapping(line)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "[v") || strings.Contains(line, " ---p ") { // the kernel's, or reserved only
			continue
		}
		b := make([]byte, r.end-r.start)
		if _, err := memory.ReadAt(b, int64(r.start)); err == nil {
			n += bytes.Count(b, needle)
		}
	}
	return n
}

// TestOverwrite: of what a process had in its memory nothing is left in it.
func TestOverwrite(t *testing.T) {
	secret := make([]byte, 64)
	_, _ = rand.Read(secret)
	child := exec.Command("/proc/self/exe")
	child.Env = []string{wipedEnv + "=1"}
	child.Stdin = bytes.NewReader(secret)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := child.Process.Pid
	defer func() { _ = endChild(pid) }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("child says %q, %v", line, err)
	}
	if err := stopChild(pid); err != nil {
		t.Fatal(err)
	}
	if before := find(t, pid, secret); before < 66 {
		t.Fatalf("found %d copies before: the test shows nothing", before)
	}
	if err := overwrite(fmt.Sprintf("/proc/%d/", pid)); err != nil {
		t.Fatal(err)
	}
	if after := find(t, pid, secret[:16]); after != 0 {
		t.Errorf("%d copies of %s are left", after, hex.EncodeToString(secret[:4]))
	}
}

// TestWipeProcess: the child is gone in any case, and one that was gone before
// counts as not wiped.
func TestWipeProcess(t *testing.T) {
	for name, script := range map[string]string{"runs": "while :; do sleep 100; done", "has ended": "exit 0"} {
		child := exec.Command("/bin/sh", "-c", script)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		pid := child.Process.Pid
		if name == "has ended" {
			_, _ = io.ReadAll(out) // to its end
		}
		if err := wipeProcess(pid); (err == nil) != (name == "runs") {
			t.Errorf("%s: %v", name, err)
		}
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			t.Errorf("%s: still there: %v", name, err)
		}
	}
}

func TestParseMapping(t *testing.T) {
	for line, want := range map[string]string{
		"c000000000-c000400000 rw-p 00000000 00:00 0 ":                   "{c000000000 c000400000} true",
		"00400000-00401000 r-xp 00000000 08:01 1234      /init":          "{400000 401000} false",
		"7f00-8f00 rw-s 00000000 00:01 2 /dev/zero (deleted)":            "{7f00 8f00} false",
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsys]": "{ffffffffff600000 ffffffffff601000} false",
		"": "", "x-y rw-p 0 0 0": "", "2-1 rw-p 0 0:0 0": "", "1000 rw-p 0 0:0 0": "", "1-2 rw 0 0:0 0": "",
	} {
		r, private, err := parseMapping(line)
		got := fmt.Sprintf("{%x %x} %v", r.start, r.end, private)
		if (err == nil) != (want != "") || err == nil && got != want {
			t.Errorf("%q: %s, %v", line, got, err)
		}
	}
}
