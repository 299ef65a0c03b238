package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestResource(t *testing.T) {
	startServer(t)
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte("very secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	set := []string{"resource", "set", "bank/key/db", "--from-file", file, "--workload", "shop"}
	if out, err := ccrun(set...); err != nil || !strings.Contains(out, "version 1 set") {
		t.Fatalf("set: %q, %v", out, err)
	}
	if out, err := ccrun(set...); err != nil || !strings.Contains(out, "version 1 was this already") {
		t.Errorf("set again: %q, %v", out, err)
	}
	if out, err := ccrun("resource", "ls"); err != nil || out != "bank/key/db\n" {
		t.Errorf("ls: %q, %v", out, err)
	}
	if out, err := ccrun("resource", "get-meta", "bank/key/db"); err != nil || !strings.Contains(out, "[shop]") || strings.Contains(out, "secret") {
		t.Errorf("get-meta: %q, %v", out, err)
	}
	if out, err := ccrun("resource", "rm", "bank/key/db"); err != nil || out != "bank/key/db\n" {
		t.Errorf("rm: %q, %v", out, err)
	}
	for _, bad := range [][]string{
		{"resource", "set", "bank/key", "--from-file", file, "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from-file", file},
		{"resource", "set", "bank/key/db", "--from-file", "/dev/null", "--workload", "shop"},
		{"resource", "set", "bank/key/db", "--from-file", "/dev/zero", "--workload", "shop"},
		{"resource", "get-meta", "bank/key/db"},
		{"resource", "rm", "bank/key/db"},
	} {
		if out, err := ccrun(bad...); err == nil {
			t.Errorf("%v: %q", bad, out)
		}
	}
}
