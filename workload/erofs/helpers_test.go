package erofs

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs"
)

var testUUID = [16]byte{0xcc, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

type memLayer []byte

func (m memLayer) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m)), nil
}

type file struct {
	hdr  tar.Header
	body []byte
}

func tarOf(t testing.TB, files []file) memLayer {
	t.Helper()
	var buf bytes.Buffer
	tw := tar.NewWriter(&buf)
	for _, f := range files {
		h := f.hdr
		h.Size, h.Format = int64(len(f.body)), tar.FormatPAX
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if _, err := tw.Write(f.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func treeOf(t testing.TB, layers ...rootfs.Layer) *rootfs.Tree {
	t.Helper()
	tree, err := rootfs.Merge(context.Background(), layers, rootfs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func dir(name string) file {
	return file{hdr: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1e9, 5)}}
}

func reg(name string, body []byte) file {
	return file{hdr: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Uid: 70000, Gid: 5, ModTime: time.Unix(2e9, 6)}, body: body}
}

func symlink(name, target string) file {
	return file{hdr: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target, ModTime: time.Unix(3e9, 7)}}
}

func withXattrs(f file, kv ...string) file {
	f.hdr.PAXRecords = map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		f.hdr.PAXRecords["SCHILY.xattr."+kv[i]] = kv[i+1]
	}
	return f
}

func many(prefix string, n, nameLen int) []file {
	out := []file{dir(prefix)}
	for i := range n {
		name := fmt.Sprintf("%d-", i)
		out = append(out, reg(prefix+"/"+name+strings.Repeat("x", max(0, nameLen-len(name))), []byte(name)))
	}
	return out
}

func image(t testing.TB, tree *rootfs.Tree) []byte {
	t.Helper()
	l, err := Plan(tree, Options{UUID: testUUID, Label: "ccrun", Time: time.Unix(1700000000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := l.WriteTo(context.Background(), &buf); err != nil {
		t.Fatal(err)
	}
	if int64(buf.Len()) != l.SizeBytes() {
		t.Fatalf("wrote %d bytes, planned %d", buf.Len(), l.SizeBytes())
	}
	return buf.Bytes()
}

func save(t testing.TB, img []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, img, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: install erofs-utils", name)
	} else if err != nil {
		t.Skipf("%s is missing: install erofs-utils", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}
