package witness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
)

// maxRecord bounds a line of the file: a checkpoint as a JSON string.
const maxRecord = 2*checkpoint.MaxBytes + 64

// record is a line of the file.
type record struct {
	Checkpoint string `json:"checkpoint"`
}

// lastRecord is the last checkpoint in the file; nil: none. What a crash cut off
// is no record: nobody was told that it is there.
func lastRecord(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	from := max(0, info.Size()-2*maxRecord)
	b := make([]byte, info.Size()-from)
	if _, err := io.ReadFull(io.NewSectionReader(f, from, int64(len(b))), b); err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	lines := bytes.SplitAfter(b, []byte("\n"))
	for i := len(lines) - 1; i >= 0 && (i > 0 || from == 0); i-- {
		if bytes.HasSuffix(lines[i], []byte("}\n")) {
			return parseRecord(lines[i])
		}
	}
	if from > 0 {
		return nil, fmt.Errorf("reading %s: no record in its last %d bytes", f.Name(), len(b))
	}
	return nil, nil
}

func parseRecord(line []byte) ([]byte, error) {
	var r record
	if err := kbs.UnmarshalStrict(line, &r); err != nil {
		return nil, fmt.Errorf("%w: reading a record: %w", ErrForged, err)
	}
	return []byte(r.Checkpoint), nil
}

// eachRecord reads a File's lines. Those that a crash has cut off are left out.
func eachRecord(r io.Reader, each func(note []byte) error) error {
	for b := bufio.NewReaderSize(r, maxRecord); ; {
		line, err := b.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("%w: a record of more than %d bytes", ErrForged, maxRecord)
		case err != nil:
			return err
		case !bytes.HasSuffix(line, []byte("}\n")):
			continue
		}
		note, err := parseRecord(line)
		if err == nil {
			err = each(note)
		}
		if err != nil {
			return err
		}
	}
}
