package source

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	tarsplit "github.com/vbatts/tar-split/tar/storage"
)

// maxSplitLine bounds one entry: tar-split cuts padding into segments of
// 1 MiB, and headers have no reason to be longer.
const maxSplitLine = 8 << 20

// splitReader reads tar-split's JSON lines. Nearly all bytes are segments in
// base64, in one spelling, as Go's encoder writes them: those are decoded
// without parsing JSON, which would cost more than reading the files.
type splitReader struct {
	r    *bufio.Reader
	line []byte
	seg  []byte
}

func newSplitReader(r io.Reader) *splitReader {
	return &splitReader{r: bufio.NewReaderSize(r, 64<<10)}
}

var segmentStart = []byte(`{"type":2,"payload":"`)

// next returns an entry, whose payload is valid until the next call, or io.EOF.
func (s *splitReader) next() (*tarsplit.Entry, error) {
	line, err := s.readLine()
	if err != nil {
		return nil, err
	}
	if rest, ok := bytes.CutPrefix(line, segmentStart); ok {
		if i := bytes.IndexByte(rest, '"'); i >= 0 && bytes.HasPrefix(rest[i:], []byte(`","position":`)) {
			if s.seg, err = base64.StdEncoding.AppendDecode(s.seg[:0], rest[:i]); err != nil {
				return nil, fmt.Errorf("reading tar-split: %w", err)
			}
			return &tarsplit.Entry{Type: tarsplit.SegmentType, Payload: s.seg}, nil
		}
	}
	e := &tarsplit.Entry{}
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("reading tar-split: %w", err)
	}
	if e.Type != tarsplit.FileType && e.Type != tarsplit.SegmentType || e.Size < 0 {
		return nil, errors.New("reading tar-split: neither a file nor a segment")
	}
	return e, nil
}

func (s *splitReader) readLine() ([]byte, error) {
	line, err := s.r.ReadSlice('\n')
	if err == bufio.ErrBufferFull { // longer than the buffer
		s.line = append(s.line[:0], line...)
		for err == bufio.ErrBufferFull && len(s.line) <= maxSplitLine {
			line, err = s.r.ReadSlice('\n')
			s.line = append(s.line, line...)
		}
		line = s.line
	}
	switch {
	case len(line) > maxSplitLine:
		return nil, fmt.Errorf("reading tar-split: an entry of more than %d bytes", maxSplitLine)
	case err == io.EOF && len(line) > 0: // the last newline is not there
		return line, nil
	}
	return line, err
}
