package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// TestScanSeekable: skipping contents finds what reading them finds.
func TestScanSeekable(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, size := range []int{0, 1, 511, 512, 513, 4095, 4096, 100_000, 3, 1 << 20} {
		h := &tar.Header{Name: strings.Repeat("d/", i*20) + "f", Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg,
			PAXRecords: map[string]string{"SCHILY.xattr.user.x": strings.Repeat("v", i*500)}}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte{'x'}, size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want, err := Scan(t.Context(), struct{ io.Reader }{bytes.NewReader(b.Bytes())}, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Scan(t.Context(), bytes.NewReader(b.Bytes()), Limits{})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("seeking gives another index: %v", err)
	}
	if _, err := Scan(t.Context(), bytes.NewReader(b.Bytes()), Limits{LayerBytes: 1 << 19}); !errors.Is(err, ErrLimit) {
		t.Errorf("a layer beyond its limit: %v", err)
	}
	if _, err := Scan(t.Context(), bytes.NewReader(b.Bytes()[:b.Len()-1<<19]), Limits{}); err == nil {
		t.Error("scanned a layer that ends in a file")
	}
}
