package store

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestStoredRegistrations reads what older commits of this repository stored:
// the file's name says which. Their digests are what approvals name.
func TestStoredRegistrations(t *testing.T) {
	files, err := filepath.Glob("testdata/registration-*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		reg, digest, err := new(registrations).read(b)
		if err != nil || digest != kbs.Sum384(b) {
			t.Errorf("%s: %s, %v", f, digest, err)
		}
		if again, err := kbs.Canonical(reg); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s became %s, %v", f, again, err)
		}
		for _, name := range []string{"workload_id", "tee", "launch_digest"} {
			misspelt := bytes.Replace(b, []byte(name), []byte(strings.ToUpper(name)), 1)
			misspelt, err := kbs.Canonical(json.RawMessage(misspelt))
			if _, _, rerr := new(registrations).read(misspelt); err != nil || rerr == nil {
				t.Errorf("%s: read with %s in other letters (%v)", f, name, err)
			}
		}
	}
}
