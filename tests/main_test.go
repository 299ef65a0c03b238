package tests

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// need ends a test whose outside tool is missing: a skip on a developer's
// machine, a failure in CI and under `make test`, which install the tools.
func need(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" || os.Getenv("CCRUN_E2E") == "1" {
		t.Fatalf("needed: %v", err)
	}
	t.Skipf("%s: needs %v", t.Name(), err)
}

// endToEnd skips a test by name unless `make test` runs it.
func endToEnd(t testing.TB) {
	t.Helper()
	if os.Getenv("CCRUN_E2E") != "1" {
		t.Skipf("%s runs under `make test`", t.Name())
	}
}

// soaking is under `make soak`, for which what is dear and shown otherwise is left.
func soaking() bool { return os.Getenv("CCRUN_LONG") == "soak" }

// patience is how long anything may take that is only slow: a machine may have
// much else to do. Reaching it is always a failure.
const patience = 10 * time.Minute

// eventually asks until it is so. It gives up only when even a slow machine
// with much else to do would have got there.
func eventually(is func() bool) bool { return eventuallyWithin(patience, is) }

func eventuallyWithin(limit time.Duration, is func() bool) bool {
	for end := time.Now().Add(limit); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// binDir is where make put the binaries under test.
func binDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("CCRUN_BIN")
	if dir == "" {
		dir = "../bin"
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(abs, "ccrun")); err != nil {
		need(t, err)
	}
	return abs
}
