package witness

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/hint"
)

const origin = "example.com/log"

func private(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func logSigner(t testing.TB, seed byte) *checkpoint.Signer {
	t.Helper()
	s, err := checkpoint.LogSigner(origin, private(seed))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// fakeLog is a log of named entries, which a test may change as who writes the
// database can.
type fakeLog struct {
	t         testing.TB
	signer    *checkpoint.Signer
	entries   []string
	witnessed checkpoint.Signed
	failing   error
	unproved  error // what Consistency says
}

func newLog(t testing.TB, n int) *fakeLog {
	l := &fakeLog{t: t, signer: logSigner(t, 1)}
	l.grow(n, "entry")
	return l
}

// grow adds entries until there are n.
func (l *fakeLog) grow(n int, name string) {
	for i := len(l.entries); i < n; i++ {
		l.entries = append(l.entries, fmt.Sprint(name, i))
	}
}

func (l *fakeLog) hashes() tlog.HashReaderFunc {
	var all []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) (some []tlog.Hash, err error) {
		for _, i := range indexes {
			some = append(some, all[i])
		}
		return some, nil
	})
	for i, e := range l.entries {
		more, err := tlog.StoredHashes(int64(i), []byte(e), read)
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, more...)
	}
	return read
}

func (l *fakeLog) signed(by ...*checkpoint.Signer) checkpoint.Signed {
	l.t.Helper()
	root, err := tlog.TreeHash(int64(len(l.entries)), l.hashes())
	if err != nil {
		l.t.Fatal(err)
	}
	c := checkpoint.Checkpoint{Origin: by[0].Name(), Size: int64(len(l.entries)), Root: root}
	b, err := checkpoint.SignCheckpoint(c, by...)
	if err != nil {
		l.t.Fatal(err)
	}
	return checkpoint.Signed{Checkpoint: c, Note: b}
}

func (l *fakeLog) Checkpoint(context.Context) (checkpoint.Signed, error) {
	if l.failing != nil {
		return checkpoint.Signed{}, l.failing
	}
	return l.signed(l.signer), nil
}

func (l *fakeLog) LogKeys(context.Context) ([]checkpoint.Verifier, error) {
	return []checkpoint.Verifier{l.signer.Verifier()}, nil
}

func (l *fakeLog) Consistency(_ context.Context, from, to int64) ([]tlog.Hash, error) {
	if l.unproved != nil || from == 0 || from == to {
		return nil, l.unproved
	}
	return tlog.ProveTree(to, from, l.hashes())
}

func (l *fakeLog) SetWitnessed(_ context.Context, c checkpoint.Signed) error {
	l.witnessed = c
	return nil
}

// kind is a witness of one kind, and how its memory is got at.
type kind struct {
	Named
	// put has it hold what the attacker, or a fault, has left there.
	put func(note []byte)
	// away takes it away.
	away func()
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func fileWitness(t testing.TB) kind {
	dir := t.TempDir()
	return kind{Named{Name: "file", Witness: File{dir}}, func(b []byte) {
		f, err := File{dir}.open(origin, true)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := appendRecord(f, b); err != nil {
			t.Fatal(err)
		}
	}, func() { os.RemoveAll(dir) }}
}

func objectWitness(t testing.TB) kind {
	var object []byte
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch b, err := io.ReadAll(r.Body); {
		case err != nil || r.URL.Path != "/bucket/example.com_log.checkpoint":
			http.Error(w, "no", http.StatusBadRequest)
		case r.Method == http.MethodPut:
			object = b
		case object == nil:
			http.NotFound(w, r)
		default:
			_, _ = w.Write(object)
		}
	}))
	t.Cleanup(s.Close)
	return kind{Named{Name: "object", Witness: Object{NewWeb(s.URL+"/bucket", nil, nil)}}, func(b []byte) { object = b }, s.Close}
}

func newServer(t testing.TB, seed byte) *Server {
	t.Helper()
	m, err := OpenMemory(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	signer, err := checkpoint.WitnessSigner("witness.example.com", private(seed), func() time.Time { return time.Unix(1_800_000_000, 0) })
	if err != nil {
		t.Fatal(err)
	}
	return &Server{Signer: signer, Logs: []checkpoint.Verifier{logSigner(t, 1).Verifier()}, Memo: m, Log: quiet()}
}

func peerWitness(t testing.TB) kind {
	server := newServer(t, 9)
	s := httptest.NewServer(server.HTTP().Handler)
	t.Cleanup(s.Close)
	return kind{Named{Name: "peer", Witness: Peer{NewWeb(s.URL, nil, nil)}, Key: server.Signer.Verifier()}, func(b []byte) {
		c, err := checkpoint.Open(b, []checkpoint.Verifier{logSigner(t, 1).Verifier()})
		both := b
		if err == nil {
			line, err := server.Signer.Cosign(c)
			if err != nil {
				t.Fatal(err)
			}
			if both, err = checkpoint.Merge(b, append([]byte(c.Text()+"\n"), line...)); err != nil {
				t.Fatal(err)
			}
		}
		if err := server.Memo.keep(origin, both); err != nil {
			t.Fatal(err)
		}
	}, s.Close}
}

func anchored(t testing.TB, l *fakeLog, w ...Named) *Anchor {
	t.Helper()
	a, err := NewAnchor(l, w, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if a.Ready() == nil {
		t.Fatal("ready before it has asked")
	}
	return a
}

// TestLogsThatAreNot: forged, cut, rolled-back and split-view logs, at each kind
// of witness, and which check says so.
func TestLogsThatAreNot(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, l *fakeLog, w kind)
		want error  // nil: nothing is wrong
		says string // in the error
		next string // in its hint
	}{
		{"nothing", func(*testing.T, *fakeLog, kind) {}, nil, "", ""},
		{"grown", func(_ *testing.T, l *fakeLog, _ kind) { l.grow(300, "more") }, nil, "", ""},
		{"rolled back", func(_ *testing.T, l *fakeLog, _ kind) { l.entries = l.entries[:7] }, ErrBehind, "it has seen 10 entries, and there are 7", "accept-rollback"},
		{"rolled back and grown again", func(_ *testing.T, l *fakeLog, _ kind) { l.entries = l.entries[:7]; l.grow(12, "other") }, ErrFork, "10", "accept-rollback"},
		{"rolled back and grown to the same size", func(_ *testing.T, l *fakeLog, _ kind) { l.entries = l.entries[:7]; l.grow(10, "other") }, ErrFork, "10", "accept-rollback"},
		{"an entry changed", func(_ *testing.T, l *fakeLog, _ kind) { l.entries[2] = "other" }, ErrFork, "", "accept-rollback"},
		{"an entry cut out", func(_ *testing.T, l *fakeLog, _ kind) {
			l.entries = append(l.entries[:3:3], l.entries[4:]...)
			l.grow(11, "more")
		}, ErrFork, "", "accept-rollback"},
		{"all entries gone", func(_ *testing.T, l *fakeLog, _ kind) { l.entries = l.entries[:1] }, ErrBehind, "it has seen 10 entries", "accept-rollback"},
		{"another view shown to the witness", func(t *testing.T, l *fakeLog, w kind) {
			other := newLog(t, 5)
			other.grow(10, "other")
			w.put(other.signed(other.signer).Note)
		}, ErrFork, "10", "accept-rollback"},
		{"a longer view shown to the witness", func(t *testing.T, l *fakeLog, w kind) {
			other := newLog(t, 5)
			other.grow(99, "other")
			w.put(other.signed(other.signer).Note)
		}, ErrBehind, "it has seen 99 entries", "accept-rollback"},
		{"the witness is behind", func(t *testing.T, l *fakeLog, w kind) { w.put(newLog(t, 4).signed(l.signer).Note) }, nil, "", ""},
		{"forged at the witness", func(t *testing.T, l *fakeLog, w kind) { w.put(newLog(t, 10).signed(logSigner(t, 2)).Note) }, ErrForged, "", "look at what witness"},
		{"cut off at the witness", func(t *testing.T, l *fakeLog, w kind) {
			b := l.signed(l.signer).Note
			w.put(b[:len(b)-9])
		}, ErrForged, "", "look at what witness"},
		{"the witness is away", func(_ *testing.T, _ *fakeLog, w kind) { w.away() }, ErrAway, "", "optional = true"},
	} {
		for _, make := range []func(testing.TB) kind{fileWitness, objectWitness, peerWitness} {
			w := make(t)
			if w.Name == "peer" && tc.want == ErrForged { // it trusts its own memory no more, and says nothing
				tc.want, tc.next = ErrAway, "optional = true"
			}
			t.Run(tc.name+"/"+w.Name, func(t *testing.T) {
				l := newLog(t, 10)
				if err := anchored(t, l, w.Named).Round(t.Context()); !errors.Is(err, ErrNothing) || !strings.Contains(hint.Of(err), "audit introduce --witness "+w.Name) {
					t.Fatalf("a witness that knows nothing: %v, hint %q", err, hint.Of(err))
				}
				if err := Introduce(t.Context(), l, w.Named); err != nil {
					t.Fatal(err)
				}
				if err := anchored(t, l, w.Named).Round(t.Context()); err != nil {
					t.Fatal(err)
				}
				tc.do(t, l, w)
				a := anchored(t, l, w.Named) // the server starts
				err := a.Round(t.Context())
				if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) || !errors.Is(a.Ready(), tc.want) {
					t.Fatalf("Round = %v, Ready = %v, expected %v", err, a.Ready(), tc.want)
				}
				if err != nil && (!strings.Contains(err.Error(), "witness "+w.Name+":") || !strings.Contains(err.Error(), tc.says) || !strings.Contains(hint.Of(err), tc.next)) {
					t.Errorf("it says %v, hint %q, expected %q, %q", err, hint.Of(err), tc.says, tc.next)
				}
				if err := Introduce(t.Context(), l, w.Named); !errors.Is(err, tc.want) {
					t.Errorf("introduced again: %v, expected %v", err, tc.want)
				}
				if tc.want == nil {
					shown, err := checkpoint.Open(a.Checkpoint(), []checkpoint.Verifier{l.signer.Verifier()})
					if err != nil || shown.Size != int64(len(l.entries)) || !bytes.Equal(l.witnessed.Note, a.Checkpoint()) {
						t.Errorf("the witnessed checkpoint is %+v, %v", shown, err)
					}
				}
			})
		}
	}
}

// TestWitnessesDisagree: one that agrees with the log does not outvote one that
// does not, and both are named.
func TestWitnessesDisagree(t *testing.T) {
	l := newLog(t, 10)
	one, other := fileWitness(t), objectWitness(t)
	one.Named.Name, other.Named.Name = "one", "other"
	for _, w := range []kind{one, other} {
		if err := Introduce(t.Context(), l, w.Named); err != nil {
			t.Fatal(err)
		}
	}
	split := newLog(t, 5)
	split.grow(10, "other")
	other.put(split.signed(l.signer).Note)
	other.Optional = true // says nothing of what it does say
	err := anchored(t, l, one.Named, other.Named).Round(t.Context())
	if !errors.Is(err, ErrFork) || !strings.Contains(err.Error(), "witness other:") || !strings.Contains(err.Error(), "witnesses disagree: one with the log, other against it") {
		t.Errorf("Round = %v", err)
	}
}

// TestWitnessAwayLater: once a witness has agreed, its silence is a warning; an
// optional one may be silent from the start; a slow one is away.
func TestWitnessAwayLater(t *testing.T) {
	l, w := newLog(t, 10), objectWitness(t)
	if err := Introduce(t.Context(), l, w.Named); err != nil {
		t.Fatal(err)
	}
	a := anchored(t, l, w.Named)
	if err := a.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.away()
	if err := a.Round(t.Context()); err != nil {
		t.Errorf("away later: %v", err)
	}
	if err := anchored(t, l, w.Named).Round(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("away at start: %v", err)
	}
	w.Optional = true
	if err := anchored(t, l, w.Named).Round(t.Context()); err != nil {
		t.Errorf("optional and away at start: %v", err)
	}
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	web := NewWeb(slow.URL, nil, nil)
	web.client.Timeout = 50 * time.Millisecond
	if err := anchored(t, l, Named{Name: "slow", Witness: Object{web}}).Round(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("slow: %v", err)
	}
}

// TestLogFails: a store that cannot say what it holds does not become ready by
// that, nor does a moment's trouble end what was.
func TestLogFails(t *testing.T) {
	l, w := newLog(t, 10), fileWitness(t)
	if err := Introduce(t.Context(), l, w.Named); err != nil {
		t.Fatal(err)
	}
	a := anchored(t, l, w.Named)
	l.failing = errors.New("the database does not answer")
	if err := a.Round(t.Context()); err == nil {
		t.Error("ready without a checkpoint")
	}
	l.failing = nil
	if err := a.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.failing = errors.New("the database does not answer")
	if err := a.Round(t.Context()); err != nil {
		t.Errorf("a moment's trouble: %v", err)
	}
	// A proof that the store cannot give is no silence of the witness's.
	l.failing, l.unproved = nil, errors.New("hashes are missing")
	w.Optional = true
	l.grow(20, "more")
	if err := anchored(t, l, w.Named).Round(t.Context()); !errors.Is(err, l.unproved) {
		t.Errorf("without a proof: %v", err)
	}
}

// TestEmptyFileIsNothing: a file that somebody has emptied is no consent.
func TestEmptyFileIsNothing(t *testing.T) {
	l, w := newLog(t, 10), fileWitness(t)
	if err := os.WriteFile(w.Witness.(File).Path(origin), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := anchored(t, l, w.Named).Round(t.Context()); !errors.Is(err, ErrNothing) {
		t.Errorf("Round = %v", err)
	}
}

// liar is a tlog-witness that answers as it likes.
func liar(t *testing.T, answer func(w http.ResponseWriter, body []byte)) Named {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		answer(w, b)
	}))
	t.Cleanup(s.Close)
	return Named{Name: "liar", Witness: Peer{NewWeb(s.URL, nil, nil)}, Key: newServer(t, 9).Signer.Verifier()}
}

// TestLyingWitness: what a witness says is worth what its key has signed.
func TestLyingWitness(t *testing.T) {
	l := newLog(t, 10)
	conflict := func(kind, body string) func(http.ResponseWriter, []byte) {
		return func(w http.ResponseWriter, _ []byte) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(http.StatusConflict)
			io.WriteString(w, body)
		}
	}
	cosigned := func(c checkpoint.Signed, seed byte) string {
		line, err := newServer(t, seed).Signer.Cosign(c)
		if err != nil {
			t.Fatal(err)
		}
		return string(line)
	}
	older := newLog(t, 4).signed(l.signer)
	for name, x := range map[string]struct {
		answer func(http.ResponseWriter, []byte)
		want   error
	}{
		"no signature":             {func(w http.ResponseWriter, _ []byte) {}, ErrForged},
		"another's signature":      {func(w http.ResponseWriter, _ []byte) { io.WriteString(w, cosigned(l.signed(l.signer), 8)) }, ErrForged},
		"signature of another one": {func(w http.ResponseWriter, _ []byte) { io.WriteString(w, cosigned(older, 9)) }, ErrForged},
		"no note":                  {func(w http.ResponseWriter, _ []byte) { io.WriteString(w, "thanks\n") }, ErrForged},
		"too much":                 {func(w http.ResponseWriter, _ []byte) { io.WriteString(w, strings.Repeat("x", checkpoint.MaxBytes+1)) }, ErrAway},
		"ahead":                    {conflict(sizeType, "11\n"), ErrUnproven},
		"other entries":            {conflict(sizeType, "10\n"), ErrUnproven},
		"a negative size":          {conflict(sizeType, "-1\n"), ErrAway},
		"a size that is none":      {conflict(sizeType, "10 \n"), ErrAway},
		"a conflict without size":  {conflict("text/html", "10\n"), ErrAway},
		"each time another size":   {func(w http.ResponseWriter, b []byte) { conflict(sizeType, fmt.Sprintf("%d\n", 2+len(b)%7))(w, b) }, ErrAway},
		"a redirect":               {func(w http.ResponseWriter, _ []byte) { w.Header().Set("Location", "/"); w.WriteHeader(307) }, ErrAway},
		"an error":                 {func(w http.ResponseWriter, _ []byte) { http.Error(w, "x", 500) }, ErrAway},
		"a refusal of the key":     {func(w http.ResponseWriter, _ []byte) { http.Error(w, "x", http.StatusForbidden) }, ErrAway},
		"inconsistent":             {func(w http.ResponseWriter, _ []byte) { http.Error(w, "x", http.StatusUnprocessableEntity) }, ErrUnproven},
	} {
		if err := anchored(t, l, liar(t, x.answer)).Round(t.Context()); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, expected %v", name, err, x.want)
		}
	}
}

// TestLiesStopNothing: a witness that lies after it has agreed, or is optional, is
// told of and does not count; what it proves by the log's own signature does.
func TestLiesStopNothing(t *testing.T) {
	l := newLog(t, 10)
	longer, other := newLog(t, 20), newLog(t, 5)
	other.grow(10, "other")
	claims := map[string]func(w http.ResponseWriter){
		"ahead": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", sizeType)
			w.WriteHeader(409)
			io.WriteString(w, "20\n")
		},
		"another": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", sizeType)
			w.WriteHeader(409)
			io.WriteString(w, "10\n")
		},
		"no sequence": func(w http.ResponseWriter) { w.WriteHeader(422) },
	}
	for name, x := range map[string]struct {
		shows []byte
		want  error // nil: the server goes on
	}{
		"nothing":                 {nil, nil},
		"what is no checkpoint":   {[]byte("x"), nil},
		"another key's":           {longer.signed(logSigner(t, 2)).Note, nil},
		"one that is extended":    {newLog(t, 4).signed(l.signer).Note, nil},
		"the one that was shown":  {l.signed(l.signer).Note, nil},
		"a longer one":            {longer.signed(l.signer).Note, ErrBehind},
		"one with other entries":  {other.signed(l.signer).Note, ErrFork},
		"a longer, unsigned text": {[]byte(longer.signed(l.signer).Text()), nil},
	} {
		for claim, say := range claims {
			lying := false
			w := liar(t, func(w http.ResponseWriter, b []byte) {
				switch {
				case !lying:
					line, err := newServer(t, 9).Signer.Cosign(l.signed(l.signer))
					if err != nil {
						t.Error(err)
					}
					_, _ = w.Write(line)
				case bytes.HasPrefix(b, []byte("old ")):
					say(w)
				case x.shows == nil:
					w.WriteHeader(http.StatusNotFound)
				default:
					_, _ = w.Write(x.shows)
				}
			})
			a := anchored(t, l, w)
			if err := a.Round(t.Context()); err != nil {
				t.Fatal(err)
			}
			lying = true
			if err := a.Round(t.Context()); !errors.Is(err, x.want) || (err == nil) != (x.want == nil) {
				t.Errorf("%s, and it shows %s: %v, expected %v", claim, name, err, x.want)
			}
			if err := anchored(t, l, w).Round(t.Context()); err == nil {
				t.Errorf("%s, and it shows %s: its lie at the start counts as its word", claim, name)
			}
			w.Optional = true
			if err := anchored(t, l, w).Round(t.Context()); !errors.Is(err, x.want) || (err == nil) != (x.want == nil) {
				t.Errorf("%s, and it shows %s, optional: %v, expected %v", claim, name, err, x.want)
			}
		}
	}
}

// TestWitnessOfBeforeTheArchive: one whose memory is older than what was archived
// says nothing, for the log or against it.
func TestWitnessOfBeforeTheArchive(t *testing.T) {
	for _, make := range []func(testing.TB) kind{fileWitness, objectWitness, peerWitness} {
		l, w := newLog(t, 10), make(t)
		if err := Introduce(t.Context(), l, w.Named); err != nil {
			t.Fatal(err)
		}
		a := anchored(t, l, w.Named)
		if err := a.Round(t.Context()); err != nil {
			t.Fatal(err)
		}
		l.grow(20, "more")
		l.unproved = fmt.Errorf("entries: %w", checkpoint.ErrArchived)
		if err := a.Round(t.Context()); err != nil {
			t.Errorf("%s, later: %v", w.Name, err)
		}
		if err := anchored(t, l, w.Named).Round(t.Context()); !errors.Is(err, ErrTooOld) {
			t.Errorf("%s, at start: %v", w.Name, err)
		}
	}
}
