package source

import (
	"io"

	"github.com/containers/image/v5/pkg/compression"

	"github.com/ccrun/ccrun/workload/gunzip"
)

// detectCompression is the library's, but for gzip: most layers are that, and
// inflating them costs more than anything else that is done to them.
func detectCompression(r io.Reader) (compression.DecompressorFunc, io.Reader, error) {
	algorithm, decompress, r, err := compression.DetectCompressionFormat(r)
	if err == nil && decompress != nil && algorithm.Name() == compression.Gzip.Name() {
		decompress = func(r io.Reader) (io.ReadCloser, error) { return gunzip.NewReader(r), nil }
	}
	return decompress, r, err
}
