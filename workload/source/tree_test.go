package source

import (
	"errors"
	"testing"

	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/rootfs"
)

// TestLimitsHoldTogether: no layer alone is over the limit, all of them are.
func TestLimitsHoldTogether(t *testing.T) {
	dir := t.TempDir()
	imagetest.App(t).WriteLayout(t, dir)
	largest := int64(5000 * (len(imagetest.Canary) + 1)) // of its three layers
	for limit, refused := range map[int64]bool{largest + 1: true, 2 * largest: false} {
		src, err := Open(t.Context(), "oci:"+dir, Options{TempDir: t.TempDir(), Limits: rootfs.Limits{TotalBytes: limit}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = src.Tree(t.Context(), func(int64) {})
		if errors.Is(err, rootfs.ErrLimit) != refused || err != nil != refused {
			t.Errorf("at most %d bytes: %v", limit, err)
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
}
