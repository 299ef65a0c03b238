package workload

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// FuzzRecord: what is read as a record is a record, and means the same when
// written again.
func FuzzRecord(f *testing.F) {
	o := testOptions(f, nil)
	o.RecordPath = filepath.Join(f.TempDir(), "record")
	if _, err := Build(f.Context(), o); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(o.RecordPath)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "record")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := ReadRecord(path)
		if err != nil {
			return
		}
		again, err := kbs.Canonical(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, again, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadRecord(path); err != nil {
			t.Errorf("not read again: %v", err)
		}
	})
}
