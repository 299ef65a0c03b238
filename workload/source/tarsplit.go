package source

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	tarsplit "github.com/vbatts/tar-split/tar/storage"
)

// maxSplitLine bounds one entry: tar-split cuts padding into segments of
// 1 MiB, and headers have no reason to be longer.
const maxSplitLine = 8 << 20

// splitReader reads tar-split's JSON lines. Nearly all are in one spelling, as
// Go's encoder writes them: those are read without parsing JSON, which would cost
// more than reading the files.
type splitReader struct {
	r       *bufio.Reader
	line    []byte
	entry   tarsplit.Entry
	payload []byte
}

func newSplitReader(r io.Reader) *splitReader {
	return &splitReader{r: bufio.NewReaderSize(r, 64<<10)}
}

// next returns an entry, which is valid until the next call, or io.EOF.
func (s *splitReader) next() (*tarsplit.Entry, error) {
	line, err := s.readLine()
	if err != nil {
		return nil, err
	}
	s.entry = tarsplit.Entry{}
	if s.usual(bytes.TrimSuffix(line, []byte("\n"))) {
		return &s.entry, nil
	}
	s.entry = tarsplit.Entry{}
	if err := json.Unmarshal(line, &s.entry); err != nil {
		return nil, fmt.Errorf("reading tar-split: %w", err)
	}
	if t := s.entry.Type; t != tarsplit.FileType && t != tarsplit.SegmentType || s.entry.Size < 0 {
		return nil, errors.New("reading tar-split: neither a file nor a segment")
	}
	return &s.entry, nil
}

// usual reads a line in the usual spelling. It says nothing of any other.
func (s *splitReader) usual(line []byte) bool {
	l := jsonLine{rest: line, ok: true}
	if bytes.HasPrefix(line, []byte(`{"type":2`)) {
		s.entry.Type = tarsplit.SegmentType
		l.skip(`{"type":2`)
	} else {
		s.entry.Type = tarsplit.FileType
		l.skip(`{"type":1,"name":`)
		s.entry.Name = l.text()
		if bytes.HasPrefix(l.rest, []byte(`,"size":`)) {
			l.skip(`,"size":`)
			s.entry.Size = l.number()
		}
	}
	l.skip(`,"payload":`)
	s.entry.Payload = l.base64(&s.payload)
	l.skip(`,"position":`)
	l.number()
	l.skip(`}`)
	return l.ok && len(l.rest) == 0
}

// jsonLine is what is left of a line, and whether all of it so far was as usual.
type jsonLine struct {
	rest []byte
	ok   bool
}

func (l *jsonLine) skip(s string) {
	rest, ok := bytes.CutPrefix(l.rest, []byte(s))
	l.rest, l.ok = rest, l.ok && ok
}

// quoted is a string without anything escaped.
func (l *jsonLine) quoted() []byte {
	l.skip(`"`)
	text, rest, ok := bytes.Cut(l.rest, []byte(`"`))
	l.rest, l.ok = rest, l.ok && ok
	return text
}

func (l *jsonLine) text() string {
	b := l.quoted()
	l.ok = l.ok && utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return r < ' ' || r == '\\' })
	return string(b)
}

// number is one of at most 18 digits, and so below 2^63.
func (l *jsonLine) number() (n int64) {
	digits := 0
	for digits < len(l.rest) && digits < 19 && l.rest[digits]-'0' <= 9 {
		n = n*10 + int64(l.rest[digits]-'0')
		digits++
	}
	l.ok = l.ok && digits > 0 && digits < 19 && (digits == 1 || l.rest[0] != '0')
	l.rest = l.rest[digits:]
	return n
}

// base64 decodes into *to, which it keeps, or returns nil for null.
func (l *jsonLine) base64(to *[]byte) []byte {
	if rest, ok := bytes.CutPrefix(l.rest, []byte(`null`)); ok {
		l.rest = rest
		return nil
	}
	var err error
	*to, err = base64.StdEncoding.AppendDecode((*to)[:0], l.quoted())
	l.ok = l.ok && err == nil
	return *to
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
