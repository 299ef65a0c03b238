package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestVolumeOptions(t *testing.T) {
	dir := t.TempDir()
	empty, full := filepath.Join(dir, "empty"), filepath.Join(dir, "full")
	for _, d := range []string{empty, filepath.Join(full, "content")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(empty, 0o750); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		empty: fmt.Sprintf("mode=750,uid=%d,gid=%d", os.Getuid(), os.Getgid()), full: "", filepath.Join(dir, "none"): "",
	} {
		if got, err := volumeOptions(path); err != nil || got != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, _ := volumeOptions(file); got != "" {
		t.Errorf("a file: %q", got)
	}
}
