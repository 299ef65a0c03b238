package destination

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"
)

// TestArchiveHeader is of a layer beyond 8 GiB, where tar's octal form ends.
func TestArchiveHeader(t *testing.T) {
	const size = 100 << 30
	head, err := archiveHeader("blobs/sha256/"+strings.Repeat("0", 64), size)
	if err != nil {
		t.Fatal(err)
	}
	h, err := tar.NewReader(bytes.NewReader(head)).Next()
	if err != nil || h.Size != size {
		t.Errorf("archive header says %v: %v", h, err)
	}
}
