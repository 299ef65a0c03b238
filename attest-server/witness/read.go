package witness

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

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
