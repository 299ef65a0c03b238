package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/blob"
)

// TestStream: whatever of a layer is not what the manifest and the configuration
// say, its reader says so at the end, and at every byte that was changed.
func TestStream(t *testing.T) {
	var plain, zipped bytes.Buffer
	w := tar.NewWriter(&plain)
	_ = w.WriteHeader(&tar.Header{Name: "f", Size: 3000, Mode: 0o644})
	_, _ = w.Write(bytes.Repeat([]byte("x"), 3000))
	_ = w.Close()
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(plain.Bytes())
	_ = z.Close()
	diffID, other := digest.FromBytes(plain.Bytes()), digest.FromString("other")
	flipped := slices.Clone(plain.Bytes())
	flipped[700] ^= 1
	for name, c := range map[string]struct {
		blob, named []byte // what there is, and what the manifest's digest is of
		diffID      digest.Digest
		right       bool
	}{
		"plain":           {plain.Bytes(), plain.Bytes(), diffID, true},
		"gzip":            {zipped.Bytes(), zipped.Bytes(), diffID, true},
		"byte changed":    {flipped, plain.Bytes(), diffID, false},
		"cut":             {plain.Bytes()[:2048], plain.Bytes(), diffID, false},
		"longer":          {append(slices.Clone(plain.Bytes()), 0), plain.Bytes(), diffID, false},
		"empty":           {nil, plain.Bytes(), diffID, false},
		"plain, diff id":  {plain.Bytes(), plain.Bytes(), other, false},
		"gzip, diff id":   {zipped.Bytes(), zipped.Bytes(), other, false},
		"gzip of another": {zipped.Bytes(), plain.Bytes(), diffID, false},
	} {
		l := &Layer{info: types.BlobInfo{Digest: digest.FromBytes(c.named), Size: int64(len(c.named))}, diffID: c.diffID,
			fetch: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.blob)), nil }}
		rc, err := l.Stream(t.Context())
		var got []byte
		if err == nil {
			got, err = io.ReadAll(rc)
			err = errors.Join(err, rc.Close())
		}
		if c.right != (err == nil) || c.right && !bytes.Equal(got, plain.Bytes()) || !c.right && !errors.Is(err, blob.ErrDigest) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
}
