package rootfs

import (
	"bytes"
	"fmt"
	"io"
)

const sparseBlock = 4096

var zeroBlock [sparseBlock]byte

// dataRanges reads a sparse file and returns its blocks that are not zero,
// neighbours joined. Reading zeros costs memory bandwidth only, and
// Limits.TotalBytes has bounded how many there are.
func dataRanges(r io.Reader, size int64) ([]Range, error) {
	var out []Range
	buf := make([]byte, 256<<10)
	for off := int64(0); off < size; {
		n := int(min(int64(len(buf)), size-off))
		if _, err := io.ReadFull(r, buf[:n]); err != nil {
			return nil, fmt.Errorf("reading sparse file: %w", err)
		}
		for i := 0; i < n; i += sparseBlock {
			block := buf[i:min(i+sparseBlock, n)]
			if isZero(block) {
				continue
			}
			out = appendRange(out, Range{off + int64(i), int64(len(block))})
			if len(out) > maxSparseRanges {
				return nil, exceeded("holes in a sparse file", maxSparseRanges, "more")
			}
		}
		off += int64(n)
	}
	return out, nil
}

func isZero(b []byte) bool { return bytes.Equal(b, zeroBlock[:len(b)]) }

func appendRange(rs []Range, r Range) []Range {
	if n := len(rs); n > 0 && rs[n-1].Offset+rs[n-1].Length == r.Offset {
		rs[n-1].Length += r.Length
		return rs
	}
	return append(rs, r)
}
