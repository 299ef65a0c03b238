package sealedlog

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A line is "[ccl1." BOOT "." SEQUENCE "." BODY "]": who looks for it finds it
// behind whatever others put in front, and put together again from the pieces in
// which it may be stored, since no byte of it but the first is a "[".
const (
	linePrefix = "[ccl1."
	lineEnd    = ']'
	keyMark    = "k" // instead of a sequence number
	bootBytes  = 12
	bootChars  = bootBytes / 3 * 4 // of base64url
)

// MaxLineBytes bounds a line. journald cuts lines of 48 KiB.
const MaxLineBytes = 47 << 10

// minimalHead is the shortest beginning of a line up to its body.
const minimalHead = len(linePrefix) + bootChars + len(".k.")

var encoding = base64.RawURLEncoding.Strict()

// A line is one of the log's, of which nothing is proven yet.
type line struct {
	boot  string
	isKey bool
	seq   uint64 // if it is not the key's
	body  []byte
}

// head is what stands before the body, and is authenticated with it.
func head(boot, sequence string) string { return linePrefix + boot + "." + sequence + "." }

func (l *line) sequence() string {
	if l.isKey {
		return keyMark
	}
	return strconv.FormatUint(l.seq, 10)
}

// appendTo writes l with its end.
func (l *line) appendTo(to []byte) []byte {
	to = append(to, head(l.boot, l.sequence())...)
	to = encoding.AppendEncode(to, l.body)
	return append(to, lineEnd, '\n')
}

var errNoLine = errors.New("not a line of a sealed log")

// parseLine takes what appendTo wrote, without its newline, and nothing else.
func parseLine(text string) (*line, error) {
	rest, ok := strings.CutPrefix(text, linePrefix)
	if !ok || len(text) > MaxLineBytes {
		return nil, errNoLine
	}
	rest, ok = strings.CutSuffix(rest, string(lineEnd))
	part := strings.Split(rest, ".")
	if !ok || len(part) != 3 {
		return nil, errNoLine
	}
	l := &line{boot: part[0], isKey: part[1] == keyMark}
	if b, err := encoding.DecodeString(l.boot); err != nil || len(b) != bootBytes {
		return nil, fmt.Errorf("boot %.20q: %w", l.boot, errNoLine)
	}
	var err error
	if !l.isKey {
		l.seq, err = strconv.ParseUint(part[1], 10, 64)
		if err != nil || l.sequence() != part[1] {
			return nil, fmt.Errorf("sequence number %.30q: %w", part[1], errNoLine)
		}
	}
	if strings.ContainsAny(part[2], "\r\n") { // which decoding would skip
		return nil, errNoLine
	}
	if l.body, err = encoding.DecodeString(part[2]); err != nil {
		return nil, fmt.Errorf("body: %w", errNoLine)
	}
	return l, nil
}
