package tests

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// entry is one member of a layer's tar.
type entry struct {
	tar.Header
	content []byte
}

func dir(name string, mode int64) entry {
	return entry{Header: tar.Header{Name: name + "/", Mode: mode, Typeflag: tar.TypeDir}}
}

func file(name string, mode int64, content []byte) entry {
	return entry{Header: tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeReg, Size: int64(len(content))}, content: content}
}

func symlink(name, target string) entry {
	return entry{Header: tar.Header{Name: name, Linkname: target, Mode: 0o777, Typeflag: tar.TypeSymlink}}
}

func layerTar(t testing.TB, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		e.Format = tar.FormatPAX
		if err := w.WriteHeader(&e.Header); err != nil {
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

// writeOCI makes an OCI layout in dir with gzip'd layers, written by hand so
// that it is not our own reader's twin.
func writeOCI(t testing.TB, dir string, config map[string]any, layers ...[]entry) {
	t.Helper()
	var diffIDs []string
	var descriptors []map[string]any
	for _, l := range layers {
		raw := layerTar(t, l)
		sum := sha256.Sum256(raw)
		diffIDs = append(diffIDs, "sha256:"+hex.EncodeToString(sum[:]))
		var z bytes.Buffer
		g := gzip.NewWriter(&z)
		_, _ = g.Write(raw)
		_ = g.Close()
		descriptors = append(descriptors, writeBlob(t, dir, "application/vnd.oci.image.layer.v1.tar+gzip", z.Bytes()))
	}
	writeLayout(t, dir, config, diffIDs, descriptors)
}

// writeLayout writes an OCI layout's documents; its layers are there already.
func writeLayout(t testing.TB, dir string, config map[string]any, diffIDs []string, layers []map[string]any) {
	t.Helper()
	image := marshal(t, map[string]any{
		"architecture": "amd64", "os": "linux", "config": config,
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	manifest := marshal(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": writeBlob(t, dir, "application/vnd.oci.image.config.v1+json", image), "layers": layers,
	})
	write(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	write(t, filepath.Join(dir, "index.json"), marshal(t, map[string]any{
		"schemaVersion": 2, "manifests": []any{writeBlob(t, dir, "application/vnd.oci.image.manifest.v1+json", manifest)},
	}))
}

// writeBlob returns the descriptor of what it writes.
func writeBlob(t testing.TB, dir, mediaType string, b []byte) map[string]any {
	sum := sha256.Sum256(b)
	name := hex.EncodeToString(sum[:])
	write(t, filepath.Join(dir, "blobs/sha256", name), b)
	return map[string]any{"mediaType": mediaType, "digest": "sha256:" + name, "size": len(b)}
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// busyboxLayer is a root file system with Debian's static busybox as /bin/sh
// and what tests look at from inside.
func busyboxLayer(t testing.TB) []entry {
	t.Helper()
	b, err := os.ReadFile("/bin/busybox")
	if err != nil {
		need(t, fmt.Errorf("busybox-static: %w", err))
	}
	entries := []entry{dir("bin", 0o755), dir("etc", 0o755), dir("tmp", 0o1777), dir("home/app", 0o755),
		file("bin/busybox", 0o755, b),
		file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")),
		file("etc/group", 0o644, []byte("root:x:0:\napp:x:1000:\nextra:x:2000:app\n")),
	}
	for _, name := range []string{"sh", "cat", "echo", "id", "ls", "mount", "sleep", "kill", "ps", "wget", "mknod", "env", "grep", "sync", "dd", "head", "sha256sum", "true", "false", "df", "unshare", "ip", "insmod", "pwd", "httpd", "stat", "od", "tail"} {
		entries = append(entries, symlink("bin/"+name, "busybox"))
	}
	return entries
}
