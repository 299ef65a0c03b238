package sealedlog

import "bytes"

// A scanner finds lines in one stream of text, whatever stands between them and
// wherever the text was cut into pieces.
type scanner struct {
	pending []byte // of a line that has begun
	found   func(*line)
	broken  func()
}

// feed takes the next piece.
func (s *scanner) feed(p []byte) {
	for len(p) > 0 {
		if len(s.pending) == 0 {
			i := bytes.IndexByte(p, linePrefix[0])
			if i < 0 {
				return
			}
			s.pending, p = append(s.pending, p[i]), p[i+1:]
			continue
		}
		n := bytes.IndexFunc(p, func(r rune) bool { return !inLine(r) })
		if n < 0 {
			n = len(p)
		}
		s.grow(p[:n])
		if p = p[n:]; len(p) > 0 && len(s.pending) > 0 {
			p = s.stop(p)
		}
	}
}

// inLine says whether r may stand between a line's first byte and its last.
func inLine(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.'
}

// grow adds what may belong to the line, unless it is none.
func (s *scanner) grow(p []byte) {
	room := max(0, MaxLineBytes-1-len(s.pending))
	s.pending = append(s.pending, p[:min(len(p), room)]...)
	if len(p) > room {
		s.drop()
		return
	}
	if n := min(len(s.pending), len(linePrefix)); string(s.pending[:n]) != linePrefix[:n] {
		s.pending = s.pending[:0]
	}
}

// stop handles a byte that may not stand within a line.
func (s *scanner) stop(p []byte) (rest []byte) {
	switch p[0] {
	case '\n', '\r': // where a log was cut into pieces
	case lineEnd:
		l, err := parseLine(string(append(s.pending, lineEnd)))
		if err != nil {
			s.drop()
			break
		}
		s.pending = s.pending[:0]
		s.found(l)
	case linePrefix[0]:
		s.drop()
		return p
	default:
		s.drop()
	}
	return p[1:]
}

// drop gives up what is pending.
func (s *scanner) drop() {
	if len(s.pending) >= len(linePrefix) {
		s.broken()
	}
	s.pending = s.pending[:0]
}

// incomplete says whether the text ended within a line.
func (s *scanner) incomplete() bool { return len(s.pending) >= len(linePrefix) }
