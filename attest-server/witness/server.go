package witness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
)

// Server is a witness for the logs of others. It cosigns what extends all that
// it has cosigned before, and nothing else.
type Server struct {
	Signer *checkpoint.Signer
	// Logs are the keys of the logs that it witnesses.
	Logs []checkpoint.Verifier
	Memo *Memory
	Log  *slog.Logger
}

// Refusals of a witness, each with its status of C2SP tlog-witness.
type refused struct {
	status int
	size   int64 // with a conflict
	err    error
}

func (r *refused) Error() string { return r.err.Error() }

// HTTP serves the protocol, with limits for slow and hostile peers.
func (s *Server) HTTP() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+addPath, s.add)
	mux.HandleFunc("POST "+lastPath, s.last)
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAdd))
	var line []byte
	if err != nil {
		err = &refused{status: http.StatusBadRequest, err: err}
	} else {
		line, err = s.Cosign(r.Context(), b)
	}
	var no *refused
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(line)
	case errors.As(err, &no) && no.status == http.StatusConflict:
		s.Log.Warn("a checkpoint is not cosigned", "error", err, "peer", r.RemoteAddr)
		w.Header().Set("Content-Type", sizeType)
		w.WriteHeader(no.status)
		fmt.Fprintf(w, "%d\n", no.size)
	case no != nil:
		s.Log.Warn("a checkpoint is not cosigned", "error", err, "status", no.status, "peer", r.RemoteAddr)
		http.Error(w, err.Error(), no.status)
	default:
		s.Log.Error("a checkpoint could not be cosigned", "error", err)
		http.Error(w, "the witness cannot cosign now", http.StatusInternalServerError)
	}
}

// last shows a log, or whoever has a checkpoint of it, what was cosigned last, so
// that what this witness says against a log can be checked.
func (s *Server) last(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, checkpoint.MaxBytes))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c, keys, err := s.open(b)
	var seen checkpoint.Signed
	if err == nil {
		unlock := s.Memo.lock(c.Origin)
		seen, err = s.Memo.last(c.Origin, keys, s.Signer.Verifier())
		unlock()
	}
	var no *refused
	switch {
	case errors.As(err, &no):
		http.Error(w, err.Error(), no.status)
	case err != nil:
		s.Log.Error("what was cosigned cannot be shown", "error", err)
		http.Error(w, "the witness cannot say now", http.StatusInternalServerError)
	case seen.Note == nil:
		http.Error(w, "nothing was cosigned of this log", http.StatusNotFound)
	default:
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(seen.Note)
	}
}

// Cosign answers a request to add a checkpoint with the line of this witness's
// signature, which is given only once the checkpoint is on disk.
func (s *Server) Cosign(ctx context.Context, request []byte) ([]byte, error) {
	q, err := parseAdd(request)
	if err != nil {
		return nil, &refused{status: http.StatusBadRequest, err: err}
	}
	c, keys, err := s.open(q.note)
	if err != nil {
		return nil, err
	}
	if q.old > c.Size {
		return nil, &refused{status: http.StatusBadRequest, err: fmt.Errorf("%w: from %d entries to %d", errRequest, q.old, c.Size)}
	}
	unlock := s.Memo.lock(c.Origin)
	defer unlock()
	seen, err := s.Memo.last(c.Origin, keys, s.Signer.Verifier())
	if err != nil {
		return nil, err
	}
	if err := mayCosign(q, seen.Checkpoint, c); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	line, err := s.Signer.Cosign(c)
	if err != nil {
		return nil, err
	}
	both, err := checkpoint.Merge(c.Note, append([]byte(c.Text()+"\n"), line...))
	if err != nil {
		return nil, &refused{status: http.StatusBadRequest, err: err}
	}
	if err := s.Memo.keep(c.Origin, both); err != nil {
		return nil, err
	}
	s.Log.Debug("cosigned", "origin", c.Origin, "size", c.Size)
	return line, nil
}

// open is the checkpoint in b, if its log is one of ours, and that log's keys.
func (s *Server) open(b []byte) (c checkpoint.Signed, keys []checkpoint.Verifier, err error) {
	said, err := checkpoint.Peek(b)
	if err != nil {
		return c, nil, &refused{status: http.StatusBadRequest, err: err}
	}
	for _, k := range s.Logs {
		if k.Name() == said.Origin {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return c, nil, &refused{status: http.StatusNotFound, err: errors.New("no key is known of log " + strconv.QuoteToGraphic(said.Origin))}
	}
	if c, err = checkpoint.Open(b, keys); err != nil {
		return c, nil, &refused{status: http.StatusForbidden, err: err}
	}
	// Extension lines would be signed with the rest, and mean nothing to us.
	if text, _, _ := checkpoint.Split(b); text != c.Text() {
		return c, nil, &refused{status: http.StatusBadRequest, err: fmt.Errorf("%w: extension lines", checkpoint.ErrForm)}
	}
	return c, keys, nil
}

// mayCosign says whether c extends what was seen last, as q proves.
func mayCosign(q addRequest, seen checkpoint.Checkpoint, c checkpoint.Signed) error {
	if q.old != seen.Size {
		return &refused{status: http.StatusConflict, size: seen.Size, err: fmt.Errorf("log %q: a checkpoint from %d entries on, and %d were seen", c.Origin, q.old, seen.Size)}
	}
	if seen.Size == c.Size && seen.Root != c.Root {
		return &refused{status: http.StatusConflict, size: seen.Size, err: fmt.Errorf("log %q has shown TWO VIEWS of %d entries: roots %s and %s", c.Origin, c.Size, seen.Root, c.Root)}
	}
	if err := checkpoint.Extends(q.proof, seen, c.Checkpoint); err != nil {
		return &refused{status: http.StatusUnprocessableEntity, err: fmt.Errorf("log %q: %w", c.Origin, err)}
	}
	return nil
}
