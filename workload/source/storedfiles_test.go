package source

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// noFiles is a driver that has none.
type noFiles struct{ asked []string }

func (n *noFiles) Get(name string) (io.ReadCloser, error) {
	n.asked = append(n.asked, name)
	if name == "below" {
		return io.NopCloser(strings.NewReader("driver's")), nil
	}
	return nil, fs.ErrNotExist
}

func (n *noFiles) Close() error { return nil }

// TestStoredFiles: what is in the layer's directory is read there, through links
// that stay in it; a link of a hostile layer leads to no file of the host's.
func TestStoredFiles(t *testing.T) {
	host, layer := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{
		filepath.Join(host, "secret"): "host's", filepath.Join(layer, "dir/file"): "layer's", filepath.Join(layer, "empty"): "",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{"inside": "/dir", "outside": host, "up": "../../../../../.." + host} {
		if err := os.Symlink(target, filepath.Join(layer, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ dir, name, want string }{
		{layer, "dir/file", "layer's"}, {layer, "inside/file", "layer's"}, {layer, "empty", ""},
		{layer, "outside/secret", "?"}, {layer, "up/secret", "?"}, {layer, "../" + filepath.Base(host) + "/secret", "?"},
		{layer, "below", "driver's"}, {"", "below", "driver's"}, {filepath.Join(layer, "absent"), "dir/file", "?"},
	} {
		rest := &noFiles{}
		s, got := filesIn(c.dir, rest), "?"
		if f, err := s.open(c.name); err == nil {
			b, err := io.ReadAll(f)
			if got = string(b); err != nil || f.Close() != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if got != c.want {
			t.Errorf("%s in %q: %q, expected %q", c.name, c.dir, got, c.want)
		}
		if ours := c.want == "layer's" || c.want == ""; ours == (len(rest.asked) > 0) {
			t.Errorf("%s in %q: the driver was asked for %q", c.name, c.dir, rest.asked)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
