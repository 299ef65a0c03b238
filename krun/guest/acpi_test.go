package guest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestACPIIsRefused: what is there is refused unless the identity allows it,
// whatever it is; what cannot be looked at is no absence.
func TestACPIIsRefused(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path    string
		allowed bool
		want    string // part of the error; empty: none
	}{
		{filepath.Join(dir, "none"), false, ""}, {filepath.Join(dir, "none"), true, ""},
		{dir, false, "host's ACPI code"}, {dir, true, ""},
		{link, false, "host's ACPI code"}, {file, false, "host's ACPI code"},
		{filepath.Join(file, "acpi"), false, "not a directory"}, {filepath.Join(file, "acpi"), true, "not a directory"},
	} {
		err := checkACPI(c.path, c.allowed)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, allowed %v: %v, expected %q", c.path, c.allowed, err, c.want)
		}
	}
}

// TestACPIIsRefusedFirst: before anything of the host's is opened, and as soon as
// the identity can say that it is allowed.
func TestACPIIsRefusedFirst(t *testing.T) {
	var names []string
	for _, s := range bootSteps() {
		names = append(names, s.name)
	}
	i := slices.Index(names, "looking for the host's ACPI")
	if i < 1 || names[i-1] != "reading the identity" {
		t.Errorf("step %d of %q", i, names)
	}
}
