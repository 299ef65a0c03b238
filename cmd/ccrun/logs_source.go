package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/krun/podman"
)

// A runState is what is known of the guest behind a log.
type runState int

const (
	notKnown runState = iota
	stillRuns
	hasEnded
)

// A logSource is where a log comes from.
type logSource interface {
	copy(context.Context, podman.Streams) error
	running(context.Context) (runState, error)
	close()
}

func openLog(c *cli.Context) (logSource, error) {
	name, follow := c.Args().First(), c.Bool("follow")
	if name == "-" {
		return &fileLog{r: c.App.Reader, name: "standard input"}, nil
	}
	if isLogFile(name) {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading the log: %w", err)
		}
		if follow {
			return &fileLog{r: &growing{ctx: c.Context, f: f, path: name}, name: name}, nil
		}
		return &fileLog{r: f, name: name}, nil
	}
	s, err := podman.Open(c.Context, podman.Options{URL: c.String("url")})
	if err != nil {
		return nil, err
	}
	return &containerLog{s: s, name: name, follow: follow}, nil
}

// containerLog is a container's, through Podman.
type containerLog struct {
	s      *podman.Service
	name   string
	follow bool
	before bool // it ran when reading began
}

func (l *containerLog) close() { _ = l.s.Close() }

func (l *containerLog) copy(ctx context.Context, to podman.Streams) (err error) {
	if l.before, err = l.s.Running(ctx, l.name); err != nil {
		return err
	}
	return l.s.Log(ctx, l.name, l.follow, to)
}

// running takes the state of before: a guest that ended meanwhile had not said
// all when it was read.
func (l *containerLog) running(ctx context.Context) (runState, error) {
	if !l.before {
		return hasEnded, nil
	}
	if !l.follow || ctx.Err() != nil {
		return stillRuns, nil
	}
	now, err := l.s.Running(ctx, l.name)
	if err == nil && !now {
		return hasEnded, nil
	}
	return stillRuns, nil // or it was removed as it ended
}

// fileLog is text from a file.
type fileLog struct {
	r    io.Reader
	name string
}

func (l *fileLog) close() {
	if c, ok := l.r.(io.Closer); ok {
		_ = c.Close()
	}
}

func (l *fileLog) running(context.Context) (runState, error) { return notKnown, nil }

func (l *fileLog) copy(_ context.Context, to podman.Streams) error {
	if err := copyLogText(l.r, to); err != nil {
		return fmt.Errorf("reading %s: %w", l.name, err)
	}
	return nil
}

// Forms of logs: Podman's k8s-file, and the journal's export format
// (systemd.io/JOURNAL_EXPORT_FORMATS).
var (
	k8sLine     = regexp.MustCompile(`^\d{4}-\d\d-\d\dT[0-9:.]{8,18}(?:Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] `)
	journalLine = regexp.MustCompile(`^(?:__CURSOR|__REALTIME_TIMESTAMP|MESSAGE|PRIORITY)=`)
)

const logChunk = 64 << 10

// copyLogText takes the log driver's own words off each line. What is in them
// need not be trusted: a line is found wherever it stands.
func copyLogText(from io.Reader, to podman.Streams) error {
	r := bufio.NewReaderSize(from, logChunk)
	first, err := r.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) && err != io.EOF {
		return err
	}
	first = bytes.Clone(first)
	rest := io.MultiReader(bytes.NewReader(first), r)
	switch {
	case journalLine.Match(first):
		return copyJournal(bufio.NewReaderSize(rest, logChunk), to)
	case k8sLine.Match(first):
		return copyK8s(bufio.NewReaderSize(rest, logChunk), to)
	}
	_, err = io.Copy(to.Out, rest)
	return err
}

// copyK8s sorts lines by their stream.
func copyK8s(r *bufio.Reader, to podman.Streams) error {
	w, begins := to.Out, true
	for {
		text, err := r.ReadSlice('\n')
		more := errors.Is(err, bufio.ErrBufferFull)
		if m := k8sLine.FindSubmatchIndex(text); begins && m != nil {
			w = to.Out
			if string(text[m[2]:m[3]]) == "stderr" {
				w = to.Err
			}
			text = text[m[1]:]
		}
		begins = !more
		if _, failed := w.Write(text); failed != nil {
			return failed
		}
		if err == io.EOF {
			return nil
		}
		if err != nil && !more {
			return err
		}
	}
}

// maxJournalField bounds a field of an entry that is kept.
const maxJournalField = 1 << 20

// copyJournal takes each entry's MESSAGE, by its PRIORITY: conmon gives stderr
// that of an error.
func copyJournal(r *bufio.Reader, to podman.Streams) error {
	var message, priority []byte
	flush := func() error {
		w := to.Out
		if string(priority) == "3" {
			w = to.Err
		}
		_, err := w.Write(message)
		message, priority = nil, nil
		return err
	}
	for {
		name, value, err := journalField(r)
		switch {
		case err == io.EOF:
			return flush()
		case err != nil:
			return err
		case name == "":
			err = flush()
		case name == "MESSAGE":
			message = value
		case name == "PRIORITY":
			priority = value
		}
		if err != nil {
			return err
		}
	}
}

// journalField is the next field; the name is empty where an entry ends.
func journalField(r *bufio.Reader) (name string, value []byte, err error) {
	text, err := readBounded(r, maxJournalField)
	if err != nil {
		return "", nil, err
	}
	text = bytes.TrimSuffix(text, []byte{'\n'})
	before, after, ok := bytes.Cut(text, []byte{'='})
	if ok || len(text) == 0 {
		return string(before), after, nil
	}
	var size [8]byte // of a value that is no text
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return "", nil, err
	}
	n := binary.LittleEndian.Uint64(size[:])
	if n > maxJournalField {
		return "", nil, fmt.Errorf("journal field %.40q of %d bytes, at most %d allowed", text, n, maxJournalField)
	}
	value = make([]byte, n+1) // with a newline
	if _, err := io.ReadFull(r, value); err != nil {
		return "", nil, err
	}
	return string(text), value[:n], nil
}

// readBounded reads up to a newline.
func readBounded(r *bufio.Reader, limit int) (text []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > limit:
			return nil, fmt.Errorf("line of more than %d bytes", limit)
		case err == nil:
			return text, nil
		case err == io.EOF && len(text) > 0:
			return text, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// growing reads a file to its end, and on as it grows; when another takes its
// name, it goes on with that.
type growing struct {
	ctx  context.Context
	f    *os.File
	path string
	next *os.File // has taken the name; f may have grown until then
}

func (g *growing) Close() error {
	if g.next != nil {
		_ = g.next.Close()
	}
	return g.f.Close()
}

func (g *growing) Read(p []byte) (int, error) {
	for {
		n, err := g.f.Read(p)
		if n > 0 || err != nil && err != io.EOF {
			return n, err
		}
		if g.next != nil { // and f was read to its end after that
			_ = g.f.Close()
			g.f, g.next = g.next, nil
			continue
		}
		if err := g.rotate(); err != nil {
			return 0, err
		}
		if g.next != nil {
			continue
		}
		select {
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// rotate opens the file that has taken the name, or begins again with one that
// was cut.
func (g *growing) rotate() error {
	mine, err := g.f.Stat()
	if err != nil {
		return err
	}
	at, err := g.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if mine.Size() < at {
		_, err = g.f.Seek(0, io.SeekStart)
		return err
	}
	named, err := os.Stat(g.path)
	if err != nil || os.SameFile(mine, named) {
		return nil // gone for now, or still the same
	}
	if next, err := os.Open(g.path); err == nil {
		g.next = next
	}
	return nil
}
