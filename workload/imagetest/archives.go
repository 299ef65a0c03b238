package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

// Canary is plaintext that must never be found in a file.
const Canary = "canary-3f1c-plaintext-must-not-touch-the-disk"

// File is an entry of an archive: a regular file if Kind is 0.
type File struct {
	Name, Content, Link string
	Mode                int64
	Kind                byte
}

// Tar is an archive of files.
func Tar(t testing.TB, files ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: f.Mode, Size: int64(len(f.Content)), Typeflag: f.Kind, Linkname: f.Link}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.Content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Gzip compresses b as most layers are, but hastily.
func Gzip(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Zstd compresses b as some layers are.
func Zstd(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

// TarOfDir packs the files below dir.
func TarOfDir(t testing.TB, dir string) []byte {
	t.Helper()
	var files []File
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		files = append(files, File{Name: rel, Content: string(b)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return Tar(t, files...)
}

// DockerSave writes m as docker save does, with one layer compressed, which
// tools accept, and one twice, by way of a link.
func (m *Image) DockerSave(t testing.TB) []byte {
	t.Helper()
	config := JSON(t, m.Config)
	item := struct {
		Config           string
		RepoTags, Layers []string
	}{Config: digest.FromBytes(config).Encoded() + ".json", RepoTags: []string{"localhost/app:1"}}
	files := []File{{Name: item.Config, Content: string(config)}}
	for i, l := range m.Layers {
		b := l.Plain
		name := string(rune('a'+i)) + "/layer.tar"
		if i == 1 {
			b = Gzip(t, b)
		}
		files = append(files, File{Name: name, Content: string(b)})
		if i == 0 {
			files = append(files, File{Name: "z/layer.tar", Kind: tar.TypeSymlink, Link: "../" + name})
			name = "z/layer.tar"
		}
		item.Layers = append(item.Layers, name)
	}
	return Tar(t, append(files, File{Name: "manifest.json", Content: string(JSON(t, []any{item}))})...)
}
