package witness

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
)

func post(s *Server, body []byte) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.HTTP().Handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, addPath, strings.NewReader(string(body))))
	return w
}

// addition is a request to add the log as it is now, from old entries on.
func (l *fakeLog) addition(old int64) []byte {
	l.t.Helper()
	proof, err := l.Consistency(l.t.Context(), old, int64(len(l.entries)))
	if err != nil {
		l.t.Fatal(err)
	}
	return formatAdd(old, proof, l.signed(l.signer).Note)
}

// TestServerCosignsWhatExtends: by C2SP tlog-witness, status by status. What is
// refused changes nothing.
func TestServerCosignsWhatExtends(t *testing.T) {
	s, l := newServer(t, 9), newLog(t, 10)
	forked := newLog(t, 5)
	forked.grow(10, "other")
	for _, tc := range []struct {
		name   string
		body   func() []byte
		status int
		body2  string
	}{
		{"first, from a size", func() []byte { return l.addition(4) }, 409, "0\n"},
		{"first, with a proof", func() []byte {
			return formatAdd(0, []tlog.Hash{{}}, l.signed(l.signer).Note)
		}, 422, ""},
		{"first", func() []byte { return l.addition(0) }, 200, "— witness.example.com "},
		{"again", func() []byte { return l.addition(10) }, 200, "— witness.example.com "},
		{"from where it was", func() []byte { return l.addition(0) }, 409, "10\n"},
		{"two views of one size", func() []byte { return forked.addition(10) }, 409, "10\n"},
		{"a shorter log", func() []byte { return newLog(t, 7).addition(7) }, 409, "10\n"},
		{"from more than there is", func() []byte { return formatAdd(10, nil, newLog(t, 7).signed(l.signer).Note) }, 400, ""},
		{"another view, longer", func() []byte { forked.grow(20, "x"); return forked.addition(10) }, 422, ""},
		{"no proof", func() []byte { l.grow(12, "y"); return formatAdd(10, nil, l.signed(l.signer).Note) }, 422, ""},
		{"another key", func() []byte { return formatAdd(10, nil, l.signed(logSigner(t, 2)).Note) }, 403, ""},
		{"another log", func() []byte {
			o, _ := checkpoint.LogSigner("example.com/elsewhere", private(1))
			return formatAdd(10, nil, l.signed(o).Note)
		}, 404, ""},
		{"an extension line", func() []byte {
			b, err := note.Sign(&note.Note{Text: l.signed(l.signer).Text() + "also this\n"}, l.signer)
			if err != nil {
				t.Fatal(err)
			}
			return formatAdd(10, nil, b)
		}, 400, ""},
		{"nothing", func() []byte { return nil }, 400, ""},
		{"too much", func() []byte { return make([]byte, maxAdd+1) }, 400, ""},
		{"a longer proof than there is", func() []byte { return formatAdd(10, make([]tlog.Hash, maxProof+1), l.signed(l.signer).Note) }, 400, ""},
		{"the log goes on", func() []byte { return l.addition(10) }, 200, "— witness.example.com "},
	} {
		w := post(s, tc.body())
		if w.Code != tc.status || !strings.HasPrefix(w.Body.String(), tc.body2) || tc.status == 409 && w.Header().Get("Content-Type") != sizeType {
			t.Errorf("%s: %d %q %q, expected %d %q", tc.name, w.Code, w.Header().Get("Content-Type"), w.Body, tc.status, tc.body2)
		}
	}
	if w := post(&Server{Signer: s.Signer, Memo: s.Memo, Log: quiet()}, l.addition(12)); w.Code != 404 {
		t.Errorf("a witness that knows no log answers %d", w.Code)
	}
}

// TestServerRemembers: over a restart; one process at a time; and what its
// memory holds that it did not cosign stops it for that log.
func TestServerRemembers(t *testing.T) {
	s, l := newServer(t, 9), newLog(t, 10)
	if w := post(s, l.addition(0)); w.Code != 200 {
		t.Fatal(w.Code)
	}
	dir := s.Memo.dir
	if _, err := OpenMemory(dir); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second process: %v", err)
	}
	restart := func() {
		t.Helper()
		s.Memo.Close()
		var err error
		if s.Memo, err = OpenMemory(dir); err != nil {
			t.Fatal(err)
		}
	}
	restart()
	if w := post(s, newLog(t, 11).addition(0)); w.Code != 409 || w.Body.String() != "10\n" {
		t.Errorf("after a restart: %d %q", w.Code, w.Body)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 1 {
		t.Errorf("files %v, %v", files, err)
	}
	good, err := os.ReadFile(s.Memo.path(origin))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"cut": good[:40], "empty": nil, "not cosigned": newLog(t, 3).signed(l.signer).Note, "unsigned": []byte(l.signed(l.signer).Text()),
	} {
		if err := os.WriteFile(s.Memo.path(origin), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if w := post(s, l.addition(0)); w.Code != 500 {
			t.Errorf("memory %s: %d %q", name, w.Code, w.Body)
		}
	}
	if err := os.WriteFile(s.Memo.path(origin), good, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Memo.dir = filepath.Join(dir, "gone")
	if w := post(s, l.addition(0)); w.Code != 500 {
		t.Errorf("what cannot be kept is answered with %d %q", w.Code, w.Body)
	}
}

// TestServerAtOnce: of many views of one size, sent at once, one is cosigned.
func TestServerAtOnce(t *testing.T) {
	s := newServer(t, 9)
	var cosigned atomic.Int64
	var all sync.WaitGroup
	for i := range 8 {
		l := newLog(t, 3)
		l.grow(9, fmt.Sprint("view", i))
		body := l.addition(0)
		all.Go(func() {
			if _, err := s.Cosign(t.Context(), body); err == nil {
				cosigned.Add(1)
			} else if no := (*refused)(nil); !errors.As(err, &no) || no.status != 409 {
				t.Errorf("refused with %v", err)
			}
		})
	}
	all.Wait()
	if n := cosigned.Load(); n != 1 {
		t.Errorf("%d views cosigned", n)
	}
}

// TestFileIsTorn: what a crash has cut off is no record, and the next one begins
// a line of its own.
func TestFileIsTorn(t *testing.T) {
	l, w := newLog(t, 10), fileWitness(t)
	if err := Introduce(t.Context(), l, w.Named); err != nil {
		t.Fatal(err)
	}
	path := w.Witness.(File).Path(origin)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"checkpoint":"example.com/lo`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l.grow(20, "more")
	for range 2 {
		if err := anchored(t, l, w.Named).Round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int64
	if err := w.Witness.(File).Each(origin, func(b []byte) error {
		c, err := checkpoint.Peek(b)
		sizes = append(sizes, c.Size)
		return err
	}); err != nil || fmt.Sprint(sizes) != "[10 20]" {
		t.Errorf("the file holds %v, %v", sizes, err)
	}
}

func FuzzAddRequest(f *testing.F) {
	l := newLog(f, 10)
	f.Add(l.addition(4))
	f.Add([]byte("old 0\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, err := parseAdd(b)
		if err == nil && string(formatAdd(q.old, q.proof, q.note)) != string(b) {
			t.Fatalf("%q is read as %+v", b, q)
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add([]byte("{\"checkpoint\":\"a\\n1\\n\"}\n"))
	f.Add([]byte("{\"checkpoint\":\"cut\n{\"checkpoint\":\"\"}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var last []byte
		all := eachRecord(file, func(n []byte) error { last = n; return nil })
		got, err := lastRecord(file)
		if all == nil && (err != nil || string(got) != string(last)) {
			t.Fatalf("last %q, %v, and of all %q", got, err, last)
		}
	})
}

// TestServerShowsWhatItSaw: to whoever has a checkpoint of the log, and nobody else.
func TestServerShowsWhatItSaw(t *testing.T) {
	s, l := newServer(t, 9), newLog(t, 10)
	ask := func(b []byte) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.HTTP().Handler.ServeHTTP(w, httptest.NewRequest(http.MethodPost, lastPath, strings.NewReader(string(b))))
		return w
	}
	mine := newLog(t, 4).signed(l.signer).Note
	if w := ask(mine); w.Code != http.StatusNotFound {
		t.Errorf("before it has seen any: %d", w.Code)
	}
	if w := post(s, l.addition(0)); w.Code != http.StatusOK {
		t.Fatal(w.Code)
	}
	for name, x := range map[string]struct {
		body   []byte
		status int
	}{
		"the log":       {mine, 200},
		"another key":   {newLog(t, 4).signed(logSigner(t, 2)).Note, 403},
		"nothing":       {nil, 400},
		"too much":      {make([]byte, checkpoint.MaxBytes+1), 400},
		"another's log": {[]byte(strings.Replace(string(mine), origin, "example.com/elsewhere", 1)), 404},
	} {
		w := ask(x.body)
		if w.Code != x.status {
			t.Errorf("%s: %d, expected %d", name, w.Code, x.status)
		}
		if x.status != http.StatusOK {
			continue
		}
		if c, err := checkpoint.Open(w.Body.Bytes(), s.Logs, s.Signer.Verifier()); err != nil || c.Size != 10 || len(c.Cosigned) != 1 {
			t.Errorf("it shows %+v, %v", c, err)
		}
	}
}
