package destination

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/vbatts/tar-split/tar/asm"
	tarsplit "github.com/vbatts/tar-split/tar/storage"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// layerTar is a small layer of a workload image with a disk of any bytes.
func layerTar(t *testing.T, disk []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range []struct {
		name    string
		mode    int64
		content []byte
	}{
		{"tmp/", 0o1777, nil}, {"entrypoint", 0o555, []byte("elf")}, {"krun-sev.json", 0o444, []byte("{}")},
		{"initrd.img", 0o444, bytes.Repeat([]byte("i"), 4096)}, {"disk.img", 0o600, disk},
	} {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.content)), ModTime: time.Unix(1_600_000_000, 0), Typeflag: tar.TypeReg}
		if e.content == nil && e.name == "tmp/" {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestStageLayer compares what is kept of a tar stream with what the tar-split
// library keeps of it, and the files with the entries.
func TestStageLayer(t *testing.T) {
	const chunk = 4 << 20 // of what writes files
	for _, size := range []int{0, 1, 511, 4096, chunk, chunk + 1, 3*chunk + 513} {
		disk := bytes.Repeat([]byte("0123456789abcdefg"), size/17+1)[:size]
		stream := layerTar(t, disk)
		dir := filepath.Join(t.TempDir(), "diff")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		s, err := stageLayer(bytes.NewReader(stream), dir)
		if err != nil {
			t.Fatal(err)
		}
		if want := (blob.Info{Digest: digest.FromBytes(stream), Size: int64(len(stream))}); s.info != want {
			t.Errorf("disk of %d bytes: layer %v, expected %v", size, s.info, want)
		}
		if _, err := s.split.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		rebuilt, err := io.ReadAll(asm.NewOutputTarStream(tarsplit.NewPathFileGetter(dir), tarsplit.NewJSONUnpacker(s.split)))
		if err != nil || !bytes.Equal(rebuilt, stream) {
			t.Errorf("disk of %d bytes: put together again it differs: %v", size, err)
		}
		if got, want := splitOf(t, s.split), librarySplit(t, stream); !reflect.DeepEqual(got, want) {
			t.Errorf("disk of %d bytes: tar-split differs from the library's", size)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		for name, mode := range map[string]os.FileMode{"tmp": 0o777 | os.ModeSticky | os.ModeDir, "disk.img": 0o600, "entrypoint": 0o555, "initrd.img": 0o444} {
			st, err := os.Stat(filepath.Join(dir, name))
			if err != nil || st.Mode() != mode || st.ModTime().Unix() != 1_600_000_000 {
				t.Errorf("%s: %v, %v, expected mode %v", name, st, err, mode)
			}
		}
	}
}

// splitOf reads a tar-split with neighbouring segments joined: where they are
// cut means nothing.
func splitOf(t *testing.T, r io.ReadSeeker) []tarsplit.Entry {
	t.Helper()
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	var out []tarsplit.Entry
	for u := tarsplit.NewJSONUnpacker(r); ; {
		e, err := u.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		e.Position = 0
		if n := len(out); n > 0 && e.Type == tarsplit.SegmentType && out[n-1].Type == tarsplit.SegmentType {
			out[n-1].Payload = append(out[n-1].Payload, e.Payload...)
			continue
		}
		out = append(out, *e)
	}
}

func librarySplit(t *testing.T, stream []byte) []tarsplit.Entry {
	t.Helper()
	var b bytes.Buffer
	r, err := asm.NewInputTarStream(bytes.NewReader(stream), tarsplit.NewJSONPacker(&b), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	return splitOf(t, bytes.NewReader(b.Bytes()))
}

// TestStageHostile: whatever is not a plain file of root at the top is
// refused, and a broken stream is an error.
func TestStageHostile(t *testing.T) {
	good := layerTar(t, []byte("disk"))
	for name, stream := range map[string][]byte{
		"path":      imagetest.Tar(t, imagetest.File{Name: "a/b", Content: "x"}),
		"dotdot":    imagetest.Tar(t, imagetest.File{Name: "..", Kind: '5'}),
		"escape":    imagetest.Tar(t, imagetest.File{Name: "../x", Content: "x"}),
		"symlink":   imagetest.Tar(t, imagetest.File{Name: "x", Link: "/etc", Kind: '2'}),
		"device":    imagetest.Tar(t, imagetest.File{Name: "x", Kind: '3'}),
		"twice":     imagetest.Tar(t, imagetest.File{Name: "x", Content: "1"}, imagetest.File{Name: "x", Content: "2"}),
		"truncated": good[:len(good)-2000],
		"long tail": append(bytes.Clone(good), make([]byte, maxSegment+1)...),
	} {
		dir := filepath.Join(t.TempDir(), "diff")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if s, err := stageLayer(bytes.NewReader(stream), dir); err == nil {
			t.Errorf("%s: accepted: %v", name, s.info)
		}
	}
}
