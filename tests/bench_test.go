package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestBenchGoesOn: a peer that fails, as `buildah mkcw` does on many small files,
// is named with its last words, and all else is measured.
func TestBenchGoesOn(t *testing.T) {
	endToEnd(t)
	if !soaking() {
		t.Skip("CCRUN_LONG=soak runs the bench")
	}
	if os.Geteuid() != 0 {
		t.Skip("peers need root")
	}
	peer := filepath.Join(t.TempDir(), "buildah")
	script := `#!/bin/sh
case "$1 $2" in
"mkcw --help" | tag*) ;;
pull*) echo id ;;
mkcw*) echo "mke2fs: Could not allocate inode" >&2; exit 1 ;;
*) exit 2 ;;
esac
`
	if err := os.WriteFile(peer, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	peers := map[string]string{
		peer:               "failed: large/mkcw: mke2fs: Could not allocate inode",
		"/nowhere/buildah": "skipped: buildah mkcw: no /nowhere/buildah",
	}
	for buildah, want := range peers {
		var table, said strings.Builder
		bench := exec.Command("./bench.sh")
		bench.Stdout, bench.Stderr = &table, &said
		bench.Env = append(os.Environ(), "BENCH_PARTS=builds", "BENCH_MIB=8", "BENCH_ROUNDS=1", "BENCH_CORES=all", "BENCH_DIR="+t.TempDir(), "BENCH_BUILDAH="+buildah)
		err := bench.Run()
		if err != nil || !strings.Contains(said.String(), want) {
			t.Errorf("%v, expected %q in:\n%s", err, want, said.String())
		}
		for _, row := range []string{"floor", "floor,cached", "plain-to-oci", "gzip-to-oci", "plain-to-oci,erofs", "storage-to-storage"} {
			if !strings.Contains(table.String(), "\nlarge/"+row+" ") {
				t.Errorf("no row %s in:\n%s", row, table.String())
			}
		}
		if strings.Contains(table.String(), "large/mkcw") {
			t.Errorf("a row of a peer that failed:\n%s", table.String())
		}
	}
}
