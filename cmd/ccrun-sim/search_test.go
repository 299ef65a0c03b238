package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestSearchRange: a needle counts once, also across the pieces that are read.
func TestSearchRange(t *testing.T) {
	needle := []byte("0123456789abcdef")
	for _, at := range []int{0, 1, 1<<20 - 16, 1<<20 - 15, 1<<20 - 1, 1 << 20, 3<<20 - 16} {
		memory := make([]byte, 3<<20)
		copy(memory[at:], needle)
		if n, read := searchRange(bytes.NewReader(memory), 0, int64(len(memory)), needle); n != 1 || read != int64(len(memory)) {
			t.Errorf("at %d: %d copies in %d bytes", at, n, read)
		}
	}
	if n, _ := searchRange(bytes.NewReader(make([]byte, 100)), 0, 1<<40, needle); n != 0 {
		t.Errorf("%d copies in nothing", n)
	}
}

// TestSearch: what a process has in its environment is in its memory, and what
// only another one has is not. What is looked for is never printed.
func TestSearch(t *testing.T) {
	child := exec.Command("sleep", "600")
	child.Env = []string{"CANARY=the canary of this very test"}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer child.Process.Kill()
	search := func(needle, pid string) (string, error) {
		var out bytes.Buffer
		app := newApp()
		app.Reader, app.Writer, app.ErrWriter = strings.NewReader(needle), &out, &out
		err := app.Run([]string{"ccrun-sim", "demo", "search", pid})
		return out.String(), err
	}
	pid := fmt.Sprint(child.Process.Pid)
	for needle, found := range map[string]bool{"the canary of this very test": true, "the canary of another test": false} {
		out, err := search(needle, pid)
		if err != nil || strings.HasPrefix(out, "0 copies in ") == found || !strings.Contains(out, "MiB of 1 processes") || strings.Contains(out, "canary") {
			t.Errorf("%s: %q, %v", needle, out, err)
		}
	}
	for needle, pid := range map[string]string{"short": pid, "the canary of this test": "1", "the canary of that test": "x", strings.Repeat("x", 2000): pid, "the canary of the test": "4194305"} {
		if out, err := search(needle, pid); err == nil {
			t.Errorf("%.30s in %s: %q", needle, pid, out)
		}
	}
}
