package verifiertest

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Vectors is the folder of real evidence: CCRUN_SHARED, or shared beside the
// repository, which lies above the test's directory. Without it, t is skipped.
func Vectors(t testing.TB) string {
	t.Helper()
	dir := vectors(t)
	if _, err := os.Stat(filepath.Join(dir, "INDEX.md")); err != nil {
		t.Skipf("no vectors in %s: set CCRUN_SHARED", dir)
	}
	return dir
}

func vectors(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("CCRUN_SHARED")
	for at := "."; dir == ""; at = filepath.Join(at, "..") {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			dir = filepath.Join(at, "..", "shared")
		} else if abs, err := filepath.Abs(at); err != nil || abs == "/" {
			t.Fatalf("no go.mod above this test: set CCRUN_SHARED: %v", err)
		}
	}
	return filepath.Join(dir, "vectors")
}

// Seed adds the real evidence whose names match, where it is at hand.
func Seed(f *testing.F, pattern string) {
	names, err := filepath.Glob(filepath.Join(vectors(f), "evidence", pattern))
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		f.Add(ReadFile(f, n))
	}
}

// RealTD is a real quote and its collateral, good at the returned time.
func RealTD(t testing.TB) (quote, collateral []byte, at time.Time) {
	t.Helper()
	dir := filepath.Join(Vectors(t), "evidence")
	return ReadFile(t, dir, "tdx-v5-tdx15.quote.bin"), ReadFile(t, dir, "tdx-v5-tdx15.collateral.json"), time.Date(2026, 2, 2, 14, 49, 26, 0, time.UTC)
}
