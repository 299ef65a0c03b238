package guest

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
)

const passwdText = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n"

func TestWorkloadUser(t *testing.T) {
	etc := t.TempDir()
	if got, err := workloadUser(&krun.Process{User: "7:8"}, etc, false); err != nil || got.UID != 7 || got.GID != 8 {
		t.Errorf("without files: %+v, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(etc, "passwd"), []byte(passwdText), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := workloadUser(&krun.Process{User: "app"}, etc, false); err != nil || got.UID != 1000 || got.GID != 1001 {
		t.Errorf("%+v, %v", got, err)
	}
	// A user that the image does not know is there afterwards, once.
	for range 2 {
		got, err := workloadUser(&krun.Process{User: "10001", WorkingDir: "/app"}, etc, false)
		if err != nil || got.UID != 10001 || got.GID != 0 || got.Home != "/app" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(etc, "passwd"))
	if want := passwdText + "10001:*:10001:0:container user:/app:/bin/sh\n"; err != nil || string(text) != want {
		t.Errorf("passwd is %q, %v", text, err)
	}
	if st, err := os.Stat(filepath.Join(etc, "passwd")); err != nil || st.Mode() != 0o644 {
		t.Errorf("its mode changed: %v", err)
	}
	// Neither may hang the boot or exhaust memory.
	if err := os.Remove(filepath.Join(etc, "group")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(etc, "group"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := workloadUser(&krun.Process{User: "app"}, etc, false); err == nil {
		t.Errorf("a pipe as group file: %+v", got)
	}
	huge := filepath.Join(etc, "group")
	if err := os.Remove(huge); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, process.MaxDatabase+1); err != nil {
		t.Fatal(err)
	}
	if got, err := workloadUser(&krun.Process{User: "app"}, etc, false); err == nil {
		t.Errorf("a huge group file: %+v", got)
	}
}
